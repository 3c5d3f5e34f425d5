"""Turns log records into span events: scores, messages of model calls, and errors, as children of the span they name.

`gen_ai.evaluation.result` becomes an evaluation. Messages of the older conventions (`gen_ai.user.message`,
`gen_ai.choice` …) and records with severity ERROR or an exception become spans of kind `other`. All are marked
`derived`, since no exporter sent them as spans. Other records, and those without a trace, are skipped and counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from leyden.events import Json, JsonObject, SpanKind
from leyden.ids import derive
from leyden.ingest.core import fields
from leyden.ingest.core.binding import NOT_ADMITTED, Admission, attempt_of
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.event import Normalised, written
from leyden.ingest.core.limits import Bounded, Limits
from leyden.ingest.core.normalise import NO_LIMITS, RejectedSpan
from leyden.ingest.core.raw import RawSpan, StatusName, plain_value, read_scope
from leyden.ingest.core.values import mapping, text
from leyden.ingest.dialects import names
from leyden.ingest.dialects.gen_ai import DETAILS_EVENT, MESSAGE_EVENTS, evaluation_of, messages_in_event, read

SEVERITY_ERROR = 17
EVENT_NAME = "event.name"
"""Attribute with the event's name, used before log records had a field for it."""
BODY = "log.body"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A log record that does not become an event."""

    why: str


@dataclass(slots=True)
class _Record:
    name: str
    severity: int
    body: Json
    span: RawSpan


def normalise_logs(
    request: ExportLogsServiceRequest, admission: Admission = NOT_ADMITTED, limits: Limits = NO_LIMITS
) -> Iterator[Normalised | Skipped | RejectedSpan]:
    """Yield the result for every record of `request`, in order."""
    for group in request.resource_logs:
        resource = Bounded(limits)(group.resource.attributes)
        for scope in group.scope_logs:
            named = read_scope(scope.scope)
            for record in scope.log_records:
                try:
                    yield _normalise_one(record, resource, named, admission, limits)
                except Exception as error:  # noqa: BLE001 - a record that cannot be normalised costs no other one
                    alone = ScopeLogs(scope=scope.scope, schema_url=scope.schema_url, log_records=[record])
                    kept = ResourceLogs(resource=group.resource, schema_url=group.schema_url, scope_logs=[alone])
                    request_alone = ExportLogsServiceRequest(resource_logs=[kept])
                    yield RejectedSpan(f"{type(error).__name__}: {error}", request_alone.SerializeToString())


def _normalise_one(
    record: LogRecord, resource: JsonObject, scope: JsonObject | None, admission: Admission, limits: Limits
) -> Normalised | Skipped:
    bounds = Bounded(limits)
    attributes = bounds(record.attributes)
    attempt = attempt_of(record.trace_id.hex(), attributes, resource, admission)
    trace_id = record.trace_id.hex() if len(record.trace_id) == 16 and any(record.trace_id) else None
    if trace_id is None and attempt is not None:
        trace_id = attempt.trace_id
    if trace_id is None:
        return Skipped("no_trace")
    body = bounds.fit(BODY, plain_value(record.body))
    name = record.event_name or text(attributes.get(EVENT_NAME)) or ""
    parent = record.span_id.hex() if len(record.span_id) == 8 and any(record.span_id) else None
    at = record.time_unix_nano or record.observed_time_unix_nano
    span_id = derive("log", trace_id, parent, at, name, record.SerializeToString(deterministic=True).hex())[:16]
    context: JsonObject = {"otel.scope": scope} if scope is not None else {}
    if resource:
        context["otel.resource"] = resource
    context |= bounds.marks()
    status: StatusName = "error" if record.severity_number >= SEVERITY_ERROR else "unset"
    raw = RawSpan(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent,
        name=name or "log",
        status=status,
        status_message="",
        start_unix_nano=at,
        end_unix_nano=at,
        attributes=attributes,
        events=(),
        resource=resource,
        context=context,
    )
    meaning = _meaning(_Record(name, record.severity_number, body, raw))
    if meaning is None:
        return Skipped("not_evidence")
    kept = {k: v for k, v in attributes.items() if k not in meaning.understood} | context
    if meaning.llm is None and meaning.evaluation is None and body is not None:
        kept[BODY] = body
    odd = ("cut",) if bounds.marks() else ()
    return written(raw, meaning, kept, attempt=attempt, dialect="log", admission=admission, derived=True, odd=odd)


def _meaning(record: _Record) -> Meaning | None:
    attributes = record.span.attributes
    if record.name == names.EVALUATION_RESULT or names.EVALUATION_NAME in attributes:
        score = evaluation_of({**mapping(record.body), **attributes})
        used = {names.EVALUATION_NAME, names.EVALUATION_LABEL, names.EVALUATION_EXPLANATION}
        used |= {names.EVALUATION_VALUE} if score["value"] is not None else set()
        return Meaning(SpanKind.EVALUATION, evaluation=score, understood=used)
    if record.name == DETAILS_EVENT:
        record.span.attributes.update(mapping(record.body))
        meaning = read(record.span, SpanKind.LLM_CALL)
        meaning.kind = SpanKind.OTHER
        return meaning
    if record.name in MESSAGE_EVENTS:
        given, said = messages_in_event(record.name, attributes, record.body)
        llm = fields.llm_call(
            provider=text(attributes.get(names.SYSTEM)),
            input_messages=given,
            output_messages=said,
        )
        return Meaning(SpanKind.OTHER, llm=llm, understood={EVENT_NAME, names.SYSTEM})
    if record.severity >= SEVERITY_ERROR or "exception.type" in attributes:
        said_type = text(attributes.get("exception.type")) or text(attributes.get("error.type"))
        return Meaning(SpanKind.OTHER, error_type=said_type, error_message=text(attributes.get("exception.message")))
    return None
