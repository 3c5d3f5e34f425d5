"""Normalises the spans of a trace request. The same request always gives the same events: no clock, no state."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from leyden.events import JsonObject, SpanKind
from leyden.events.tool_results import reported_error
from leyden.ids import AttemptRef, derive
from leyden.ingest.core.binding import NOT_ADMITTED, Admission, attempt_of
from leyden.ingest.core.dialect import Dialect, Meaning
from leyden.ingest.core.event import Normalised, written
from leyden.ingest.core.limits import Bounded, Limits
from leyden.ingest.core.raw import BadSpanError, RawSpan, plain_attributes, read_scope, read_span
from leyden.ingest.core.values import text

NO_LIMITS = Limits()
CLOCK = "otel.clock"
"""Attribute with the exporter's end time, if that was before the start."""
TRACEBACK = "Traceback (most recent call last)"
STACK_FRAME = re.compile(r"\s+at (?:.*[^\s\d]:\d+:\d+\)?|\S.* \((?:<anonymous>|native|index \d+)\))\s*")
"""A line of Node's stack. It ends with `file:line:column`, in brackets or not, or with a place that has none."""
LEFT_OUT = "otel.left_out"
"""Attribute that maps the name of each dropped attribute (it repeated a field of the event) to its length."""


@dataclass(frozen=True)
class RejectedSpan:
    """A span that cannot be normalised: the reason, and a request with only this span."""

    reason: str
    request: bytes


def normalise_traces(
    request: ExportTraceServiceRequest,
    dialects: Sequence[Dialect],
    admission: Admission = NOT_ADMITTED,
    limits: Limits = NO_LIMITS,
) -> Iterator[Normalised | RejectedSpan]:
    """Yield every span of `request`, each followed by the scores it contains. Invalid spans do not affect others."""
    large = request.ByteSize() > min(limits.value_chars, limits.span_chars)
    for group in request.resource_spans:
        resource = Bounded(limits)(group.resource.attributes) if large else plain_attributes(group.resource.attributes)
        for scope in group.scope_spans:
            named = read_scope(scope.scope)
            for span in scope.spans:
                bounds = Bounded(limits) if large and span.ByteSize() > limits.value_chars else None
                try:
                    raw = read_span(span, resource, named, bounds or plain_attributes)
                    if bounds is not None:
                        raw.context |= bounds.marks()
                    marks = ("cut",) if bounds and bounds.marks() else ()
                    found = list(normalise(raw, dialects, admission, marks))
                except Exception as error:  # noqa: BLE001 - a dialect may be a package's: its fault costs the span alone
                    yield _rejected(error, span, scope, group)
                else:
                    yield from found


def normalise(
    span: RawSpan, dialects: Sequence[Dialect], admission: Admission = NOT_ADMITTED, odd: tuple[str, ...] = ()
) -> Iterator[Normalised]:
    """Interpret `span` by the first dialect that recognises it; yields the span, then the scores it contains."""
    if span.end_unix_nano < span.start_unix_nano:
        span.context[CLOCK] = {"end_unix_nano": span.end_unix_nano}
        span.end_unix_nano = span.start_unix_nano
        odd = (*odd, "end_before_start")
    for dialect in dialects:
        if dialect.recognises(span):
            break
    meaning = dialect.meaning(span)
    attempt = attempt_of(span.trace_id, span.attributes, span.resource, admission)
    _set_error(meaning, span)
    if meaning.tool is not None and meaning.tool["error"] is None:
        meaning.tool["error"] = reported_error(meaning.tool["result"])
    left = _left_over(span, meaning)
    yield written(span, meaning, left, attempt=attempt, dialect=dialect.name, admission=admission, odd=odd)
    for index, score in dialect.evaluations(span):
        yield _score(span, index, score, attempt=attempt, dialect=dialect.name, admission=admission)


def _rejected(error: Exception, span: Span, scope: ScopeSpans, group: ResourceSpans) -> RejectedSpan:
    alone = ScopeSpans(scope=scope.scope, schema_url=scope.schema_url, spans=[span])
    kept = ResourceSpans(resource=group.resource, schema_url=group.schema_url, scope_spans=[alone])
    reason = str(error) if isinstance(error, BadSpanError) else f"{type(error).__name__}: {error}"
    return RejectedSpan(reason, ExportTraceServiceRequest(resource_spans=[kept]).SerializeToString())


def _set_error(meaning: Meaning, span: RawSpan) -> None:
    """Fill in the error from `error.type`, the status and exception events, unless the dialect did.

    Some exporters append a stack trace to the message. It is in the exception event too, so it is removed here.
    """
    message = span.status_message or None
    if span.events:
        exception = next((e.attributes for e in reversed(span.events) if e.name == "exception"), {})
        meaning.error_type = meaning.error_type or text(span.attributes.get("error.type"))
        meaning.error_type = meaning.error_type or text(exception.get("exception.type"))
        message = message or text(exception.get("exception.message"))
    else:
        meaning.error_type = meaning.error_type or text(span.attributes.get("error.type"))
    if message is not None:
        message = _without_stack(message)
    meaning.error_message = meaning.error_message or message


def _without_stack(message: str) -> str:
    """The message without Python's traceback, or Node's stack, which begins with the error and its message again."""
    if TRACEBACK in message:
        return message.partition(TRACEBACK)[0].strip() or message
    lines = message.rstrip().split("\n")
    kept = len(lines)
    while kept > 1 and STACK_FRAME.fullmatch(lines[kept - 1]):
        kept -= 1
    if kept == len(lines):
        return message
    head = "\n".join(lines[:kept])
    first, _, again = head.rpartition("\n\n")
    return first if first and first in again else head


def _score(
    holder: RawSpan,
    index: int,
    score: JsonObject,
    *,
    attempt: AttemptRef | None,
    dialect: str,
    admission: Admission,
) -> Normalised:
    """A score among a span's events, as a child span."""
    event = holder.events[index]
    at = event.time_unix_nano or holder.end_unix_nano
    span = replace(
        holder,
        span_id=derive("evaluation", holder.trace_id, holder.span_id, index)[:16],
        parent_span_id=holder.span_id,
        name=event.name,
        status="unset",
        start_unix_nano=at,
        end_unix_nano=at,
    )
    meaning = Meaning(SpanKind.EVALUATION, evaluation=score)
    told = event.attributes
    return written(span, meaning, told, attempt=attempt, dialect=dialect, admission=admission, derived=True)


def _left_over(span: RawSpan, meaning: Meaning) -> JsonObject:
    understood, repeated = meaning.understood, meaning.repeated
    kept: JsonObject = {k: v for k, v in span.attributes.items() if k not in understood and k not in repeated}
    kept |= span.context
    if repeated and (sizes := {k: len(str(v)) for k, v in span.attributes.items() if k in repeated}):
        kept[LEFT_OUT] = dict(sizes)
    if span.resource:
        kept["otel.resource"] = span.resource
    if span.events and (events := [e for e in span.events if e.name not in meaning.events]):
        kept["otel.events"] = [
            {"name": e.name, "time_unix_nano": e.time_unix_nano, "attributes": e.attributes} for e in events
        ]
    return kept
