"""A request's spans in the one span model. Same request, same events: no clock, no state."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from leyden.events import Evaluation, JsonObject, SpanKind, SpanRecorded
from leyden.ids import derive
from leyden.ingest.core.binding import attempt_of
from leyden.ingest.core.dialect import Dialect, Meaning
from leyden.ingest.core.raw import RawEvent, RawSpan, read_span

PRODUCER = "ingest"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Refused:
    """A span that cannot be read: why, and a request that holds it alone."""

    reason: str
    request: bytes


def normalise_request(
    request: ExportTraceServiceRequest, dialects: Sequence[Dialect]
) -> Iterator[SpanRecorded | Refused]:
    """Every span of `request`, each followed by the scores inside it; one that is bad does not touch the others."""
    for group in request.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                yield from _normalise_one(span, scope, group, dialects)


def normalise(span: RawSpan, dialects: Sequence[Dialect]) -> list[SpanRecorded]:
    """`span` in the first dialect that recognises it, and the scores inside it."""
    dialect = next(d for d in dialects if d.recognises(span))
    recorded = _recorded(span, dialect.meaning(span), dialect.name)
    return [recorded, *(_score(recorded, span.events[i], i, score) for i, score in dialect.evaluations(span))]


def _normalise_one(
    span: Span, scope: ScopeSpans, group: ResourceSpans, dialects: Sequence[Dialect]
) -> list[SpanRecorded] | list[Refused]:
    try:
        return normalise(read_span(span, group.resource, scope.scope), dialects)
    except ValueError as error:
        alone = ScopeSpans(scope=scope.scope, schema_url=scope.schema_url, spans=[span])
        kept = ResourceSpans(resource=group.resource, schema_url=group.schema_url, scope_spans=[alone])
        return [Refused(str(error), ExportTraceServiceRequest(resource_spans=[kept]).SerializeToString())]


def _recorded(span: RawSpan, meaning: Meaning, dialect: str) -> SpanRecorded:
    attempt = attempt_of(span)
    exception = next((e.attributes for e in reversed(span.events) if e.name == "exception"), {})
    return SpanRecorded(
        event_id=derive("span", span.trace_id, span.span_id),
        event_time=_time(span.end_unix_nano),
        producer=PRODUCER,
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        rollout_id=attempt.rollout_id if attempt else None,
        attempt=attempt.attempt if attempt else 0,
        kind=meaning.kind,
        dialect=dialect,
        name=span.name,
        status=span.status,
        error_type=_text(span.attributes.get("error.type")) or _text(exception.get("exception.type")),
        error_message=span.status_message or _text(exception.get("exception.message")),
        start_unix_nano=span.start_unix_nano,
        end_unix_nano=span.end_unix_nano,
        agent_name=meaning.agent_name,
        model=meaning.model,
        tool=meaning.tool,
        evaluation=meaning.evaluation,
        attributes=_left_over(span, meaning),
    )


def _score(holder: SpanRecorded, event: RawEvent, index: int, score: Evaluation) -> SpanRecorded:
    """A score inside a span, as a span of its own under it."""
    span_id = derive("evaluation", holder.trace_id, holder.span_id, index)[:16]
    at = event.time_unix_nano or holder.end_unix_nano
    return SpanRecorded(
        event_id=derive("span", holder.trace_id, span_id),
        event_time=_time(at),
        producer=PRODUCER,
        trace_id=holder.trace_id,
        span_id=span_id,
        parent_span_id=holder.span_id,
        rollout_id=holder.rollout_id,
        attempt=holder.attempt,
        derived=True,
        kind=SpanKind.EVALUATION,
        dialect=holder.dialect,
        name=event.name,
        start_unix_nano=at,
        end_unix_nano=at,
        evaluation=score,
        attributes=event.attributes,
    )


def _left_over(span: RawSpan, meaning: Meaning) -> JsonObject:
    kept: JsonObject = {k: v for k, v in span.attributes.items() if k not in meaning.understood}
    kept |= span.context
    if span.resource:
        kept["otel.resource"] = span.resource
    if span.events:
        kept["otel.events"] = [
            {"name": e.name, "time_unix_nano": e.time_unix_nano, "attributes": e.attributes} for e in span.events
        ]
    return kept


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(unix_nano: int) -> datetime:
    return EPOCH + timedelta(microseconds=unix_nano // 1000)
