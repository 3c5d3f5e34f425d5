"""HTTP requests, database queries and processes: their results are evidence for reward rules, whatever the agent.

Their attributes are kept as they are (they are small); `outcome` has the result under one name.
"""

from collections.abc import Sequence

from leyden.events import JsonObject, SpanKind
from leyden.ingest.core import fields
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import count, first, integer, text
from leyden.ingest.dialects import gen_ai

_HTTP = ("http.response.status_code", "http.status_code")
_EXIT = ("process.exit.code", "process.exit_code")
_ROWS = "db.response.returned_rows"
_DB_STATUS = "db.response.status_code"
_MARKS = frozenset({
    *_HTTP, *_EXIT, "http.request.method", "http.method", "db.system", "db.system.name", "db.statement",
    "db.query.text", "process.command", "process.command_args", "process.executable.name",
})  # fmt: skip


class Evidence:
    """Spans of the semantic conventions for HTTP, databases and processes."""

    name = "evidence"

    def recognises(self, span: RawSpan) -> bool:
        return not _MARKS.isdisjoint(span.attributes)

    def meaning(self, span: RawSpan) -> Meaning:
        attributes = span.attributes
        status = first(attributes, _DB_STATUS)
        outcome = fields.outcome(
            http_status=integer(first(attributes, *_HTTP)),
            db_status=str(status) if isinstance(status, int) and not isinstance(status, bool) else text(status),
            returned_rows=count(attributes.get(_ROWS)),
            exit_code=integer(first(attributes, *_EXIT)),
        )
        answered = any(value is not None for value in outcome.values())
        return Meaning(SpanKind.OTHER, outcome=outcome if answered else None)

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return gen_ai.evaluations(span)
