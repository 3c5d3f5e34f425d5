"""The fallback: keeps every attribute as it is."""

from collections.abc import Sequence

from leyden.events import JsonObject, SpanKind
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.raw import RawSpan


class Other:
    """Accepts every span."""

    name = "other"

    def recognises(self, span: RawSpan) -> bool:
        return True

    def meaning(self, span: RawSpan) -> Meaning:
        return Meaning(SpanKind.OTHER)

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return ()
