"""A trace request's spans in the one span model. Same request, same events: no clock, no state."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from leyden.events import JsonObject, SpanKind
from leyden.ids import AttemptRef, derive
from leyden.ingest.core.binding import NO_DOOR, Door, attempt_of
from leyden.ingest.core.dialect import Dialect, Meaning
from leyden.ingest.core.event import Normalised, written
from leyden.ingest.core.limits import Bounded, Limits
from leyden.ingest.core.raw import RawSpan, plain_attributes, read_scope, read_span
from leyden.ingest.core.values import text

NO_LIMITS = Limits()
CLOCK = "otel.clock"
"""Attribute: the end that the exporter sent, where it was before the start."""
TRACEBACK = "Traceback (most recent call last)"
LEFT_OUT = "otel.left_out"
"""Attribute: name → length of attributes that only repeat what the event's fields say."""


@dataclass(frozen=True)
class Refused:
    """A span that cannot be read: why, and a request that holds it alone."""

    reason: str
    request: bytes


def normalise_traces(
    request: ExportTraceServiceRequest,
    dialects: Sequence[Dialect],
    door: Door = NO_DOOR,
    limits: Limits = NO_LIMITS,
) -> Iterator[Normalised | Refused]:
    """Every span of `request`, each followed by the scores inside it; one that is bad does not touch the others."""
    large = request.ByteSize() > min(limits.value_chars, limits.span_chars)
    for group in request.resource_spans:
        resource = Bounded(limits)(group.resource.attributes) if large else plain_attributes(group.resource.attributes)
        for scope in group.scope_spans:
            named = read_scope(scope.scope)
            for span in scope.spans:
                bounds = Bounded(limits) if large and span.ByteSize() > limits.value_chars else None
                try:
                    raw = read_span(span, resource, named, bounds or plain_attributes)
                except ValueError as error:
                    yield _refused(error, span, scope, group)
                    continue
                if bounds is not None:
                    raw.context |= bounds.marks()
                yield from normalise(raw, dialects, door, ("cut",) if bounds and bounds.marks() else ())


def normalise(
    span: RawSpan, dialects: Sequence[Dialect], door: Door = NO_DOOR, odd: tuple[str, ...] = ()
) -> Iterator[Normalised]:
    """`span` in the first dialect that recognises it, and the scores inside it."""
    if span.end_unix_nano < span.start_unix_nano:
        span.context[CLOCK] = {"end_unix_nano": span.end_unix_nano}
        span.end_unix_nano = span.start_unix_nano
        odd = (*odd, "end_before_start")
    for dialect in dialects:
        if dialect.recognises(span):
            break
    meaning = dialect.meaning(span)
    attempt = attempt_of(span.trace_id, span.attributes, span.resource, door)
    _tell_error(meaning, span)
    yield written(span, meaning, _left_over(span, meaning), attempt, dialect.name, door, odd=odd)
    for index, score in dialect.evaluations(span):
        yield _score(span, index, score, attempt, dialect.name, door)


def _refused(error: ValueError, span: Span, scope: ScopeSpans, group: ResourceSpans) -> Refused:
    alone = ScopeSpans(scope=scope.scope, schema_url=scope.schema_url, spans=[span])
    kept = ResourceSpans(resource=group.resource, schema_url=group.schema_url, scope_spans=[alone])
    return Refused(str(error), ExportTraceServiceRequest(resource_spans=[kept]).SerializeToString())


def _tell_error(meaning: Meaning, span: RawSpan) -> None:
    """What went wrong: what the dialect says, else the conventions' names, the status and exception events.

    Some put a traceback into the message: that is in the exception's event, and is cut off here.
    """
    message = span.status_message or None
    if span.events:
        exception = next((e.attributes for e in reversed(span.events) if e.name == "exception"), {})
        meaning.error_type = meaning.error_type or text(span.attributes.get("error.type"))
        meaning.error_type = meaning.error_type or text(exception.get("exception.type"))
        message = message or text(exception.get("exception.message"))
    else:
        meaning.error_type = meaning.error_type or text(span.attributes.get("error.type"))
    if message is not None and TRACEBACK in message:
        message = message.partition(TRACEBACK)[0].strip() or message
    meaning.error_message = meaning.error_message or message


def _score(
    holder: RawSpan, index: int, score: JsonObject, attempt: AttemptRef | None, dialect: str, door: Door
) -> Normalised:
    """A score inside a span, as a span of its own under it."""
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
    return written(span, meaning, event.attributes, attempt, dialect, door, derived=True)


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
