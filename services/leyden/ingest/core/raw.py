"""A span as its exporter sent it, in plain Python and plain JSON values. Knows OTLP; knows no dialect."""

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from leyden.events import Json, JsonObject

StatusName = Literal["unset", "ok", "error"]
_STATUS: dict[int, StatusName] = {Status.STATUS_CODE_OK: "ok", Status.STATUS_CODE_ERROR: "error"}


class BadSpanError(ValueError):
    """A span that cannot be told from others: its ids are not W3C ids."""


@dataclass(frozen=True)
class RawEvent:
    """Something that happened inside a span."""

    name: str
    time_unix_nano: int
    attributes: JsonObject


@dataclass(frozen=True)
class RawSpan:
    """One finished span, before anybody has said what it means."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    status: StatusName
    status_message: str
    start_unix_nano: int
    end_unix_nano: int
    attributes: JsonObject
    events: tuple[RawEvent, ...]
    resource: JsonObject
    context: JsonObject
    """What else the exporter said (`otel.scope`, `otel.kind`, `otel.links`), kept as it is."""


def read_span(span: Span, resource: Resource, scope: InstrumentationScope) -> RawSpan:
    """`span` in plain values; raises `BadSpanError` when its ids are missing or malformed."""
    return RawSpan(
        trace_id=_hex_id(span.trace_id, 16, "trace id"),
        span_id=_hex_id(span.span_id, 8, "span id"),
        parent_span_id=span.parent_span_id.hex() if any(span.parent_span_id) else None,
        name=span.name,
        status=_STATUS.get(span.status.code, "unset"),
        status_message=span.status.message,
        start_unix_nano=span.start_time_unix_nano,
        end_unix_nano=span.end_time_unix_nano or span.start_time_unix_nano,
        attributes=plain_attributes(span.attributes),
        events=tuple(RawEvent(e.name, e.time_unix_nano, plain_attributes(e.attributes)) for e in span.events),
        resource=plain_attributes(resource.attributes),
        context=_context(span, scope),
    )


def plain_attributes(attributes: Iterable[KeyValue]) -> JsonObject:
    """Attributes as a JSON object; the last of a repeated key stays."""
    return {item.key: plain_value(item.value) for item in attributes}


def plain_value(value: AnyValue) -> Json:
    """An OTLP value as JSON: bytes become base64, numbers that JSON has not (NaN, infinity) their names."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
        case "array_value":
            return [plain_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return plain_attributes(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
    return None


def _hex_id(raw: bytes, length: int, what: str) -> str:
    if len(raw) != length or not any(raw):
        raise BadSpanError(f"{what} {raw.hex()!r} is not {length} bytes, at least one of them not 0")
    return raw.hex()


def _context(span: Span, scope: InstrumentationScope) -> JsonObject:
    context: JsonObject = {}
    if scope.name:
        context["otel.scope"] = {"name": scope.name, "version": scope.version}
    if span.kind > Span.SPAN_KIND_INTERNAL:
        context["otel.kind"] = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()
    if span.links:
        context["otel.links"] = [
            {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()} for link in span.links
        ]
    return context
