"""Converts OTLP spans to plain Python and JSON values. Knows OTLP, no dialect."""

import base64
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from leyden.events import Json, JsonObject

StatusName = Literal["unset", "ok", "error"]
_STATUS: dict[int, StatusName] = {Status.STATUS_CODE_OK: "ok", Status.STATUS_CODE_ERROR: "error"}
NO_ID = b"\0"
"""Invalid ids consist of this byte only (W3C Trace Context)."""
_KINDS = {kind: name.removeprefix("SPAN_KIND_").lower() for name, kind in Span.SpanKind.items()}

Attributes = Callable[[Iterable[KeyValue]], JsonObject]
"""Converts attributes to JSON: `plain_attributes`, or `core.limits.Bounded` with size limits."""


class BadSpanError(ValueError):
    """The span's trace id or span id is missing or invalid."""


@dataclass(slots=True)
class RawEvent:
    """An event of a span."""

    name: str
    time_unix_nano: int
    attributes: JsonObject


@dataclass(slots=True, kw_only=True)
class RawSpan:
    """A span as exported, not yet interpreted by a dialect."""

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
    """Further fields of the span, unchanged: `otel.scope`, `otel.kind`, `otel.links`."""
    unfinished: bool = False
    """It has no end yet; `end_unix_nano` is its start."""


def plain_attributes(attributes: Iterable[KeyValue]) -> JsonObject:
    """Attributes as a JSON object. Of repeated keys the last one wins."""
    found: JsonObject = {}
    for item in attributes:
        value = item.value
        found[item.key] = value.string_value or plain_value(value)
    return found


def plain_value(value: AnyValue) -> Json:
    """An OTLP value as JSON: bytes as base64, NaN and infinities as strings."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
        case "bool_value":
            return value.bool_value
        case "array_value":
            return [plain_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return plain_attributes(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
    return None


def read_span(
    span: Span, resource: JsonObject, scope: JsonObject | None, plain: Attributes = plain_attributes
) -> RawSpan:
    """Convert `span`. Raises `BadSpanError` if its trace id or span id is missing or invalid."""
    start = span.start_time_unix_nano
    events = span.events
    parent = span.parent_span_id
    status = span.status
    return RawSpan(
        trace_id=hex_id(span.trace_id, 16, "trace id"),
        span_id=hex_id(span.span_id, 8, "span id"),
        parent_span_id=parent.hex() if parent.strip(NO_ID) else None,
        name=span.name,
        status=_STATUS.get(status.code, "unset"),
        status_message=status.message,
        start_unix_nano=start,
        end_unix_nano=span.end_time_unix_nano or start,
        attributes=plain(span.attributes),
        events=tuple([RawEvent(e.name, e.time_unix_nano, plain(e.attributes)) for e in events]) if events else (),
        resource=resource,
        context=_context(span, scope),
        unfinished=not span.end_time_unix_nano,
    )


def read_scope(scope: InstrumentationScope) -> JsonObject | None:
    """The instrumentation scope, as stored with each of its spans; None if it has no name."""
    return {"name": scope.name, "version": scope.version} if scope.name else None


def hex_id(raw: bytes, length: int, what: str) -> str:
    """The id in hex. Raises `BadSpanError` if it has a wrong length or is all zeros."""
    if len(raw) != length or not raw.strip(NO_ID):
        raise BadSpanError(f"{what} {raw[:32].hex()!r} is invalid: it must be {length} bytes and not all zeros")
    return raw.hex()


def _context(span: Span, scope: JsonObject | None) -> JsonObject:
    context: JsonObject = {}
    if scope is not None:
        context["otel.scope"] = scope
    if span.kind > Span.SPAN_KIND_INTERNAL:
        context["otel.kind"] = _KINDS.get(span.kind, span.kind)
    if span.links:
        context["otel.links"] = [
            {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()} for link in span.links
        ]
    return context
