"""OTLP protobuf for tests: spans, requests, attributes."""

from collections.abc import Mapping, Sequence

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from leyden.ids import AttemptRef

ROLLOUT = "1e7de" + "a" * 23
ATTEMPT = AttemptRef(ROLLOUT, 2)
FOREIGN_TRACE = "f" * 32
START, END = 1_700_000_000_000_000_000, 1_700_000_001_500_000_000


def any_value(value: object) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=key_values(value)))
    return AnyValue()


def key_values(attributes: Mapping[str, object]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def otlp_event(name: str, attributes: Mapping[str, object], time: int = START + 1) -> Span.Event:
    return Span.Event(name=name, time_unix_nano=time, attributes=key_values(attributes))


def otlp_span(
    attributes: Mapping[str, object] | None = None,
    name: str = "a span",
    trace_id: str = ATTEMPT.trace_id,
    span_id: str = "00000000000000a1",
    events: Sequence[Span.Event] = (),
    error: str | None = None,
) -> Span:
    status = Status(code=Status.STATUS_CODE_ERROR, message=error) if error is not None else Status()
    return Span(
        trace_id=bytes.fromhex(trace_id),
        span_id=bytes.fromhex(span_id),
        parent_span_id=bytes(8),
        name=name,
        start_time_unix_nano=START,
        end_time_unix_nano=END,
        attributes=key_values(attributes or {}),
        events=events,
        status=status,
    )


def otlp_request(*spans: Span, resource: Mapping[str, object] | None = None) -> ExportTraceServiceRequest:
    scope = ScopeSpans(scope=InstrumentationScope(name="tests", version="1"), spans=spans)
    group = ResourceSpans(resource=Resource(attributes=key_values(resource or {})), scope_spans=[scope])
    return ExportTraceServiceRequest(resource_spans=[group])
