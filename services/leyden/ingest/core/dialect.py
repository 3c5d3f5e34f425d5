"""What a dialect is: it says whether a span is in it, and what the span then means. No dialect is here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from leyden.events import Evaluation, SpanKind, ToolCall
from leyden.ingest.core.raw import RawSpan


@dataclass(frozen=True)
class Meaning:
    """What a dialect understood of a span. Whatever is not in `understood` stays among the span's attributes."""

    kind: SpanKind
    agent_name: str | None = None
    model: str | None = None
    tool: ToolCall | None = None
    evaluation: Evaluation | None = None
    understood: frozenset[str] = frozenset()
    """Names of the attributes that the fields above carry in full."""


class Dialect(Protocol):
    """One instrumentation's way to say what happened. Recognise by meaning, not by a product's name."""

    @property
    def name(self) -> str:
        """Written to `SpanRecorded.dialect`."""
        ...

    def recognises(self, span: RawSpan) -> bool:
        """Whether the span is in this dialect; must be cheap, and must not raise."""
        ...

    def meaning(self, span: RawSpan) -> Meaning:
        """What a recognised span says. What cannot be read is left among the attributes; a value is never made up."""
        ...

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, Evaluation]]:
        """Scores that the span carries as events: (index of the event, score)."""
        ...
