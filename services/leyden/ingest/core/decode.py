"""Decodes a record of `otlp.v1` into OTLP messages. `leyden.events.otlp` documents the record's format.

An item (span or log record) that cannot be decoded is reported on its own; the other items of the request are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from leyden.events.otlp import (
    ATTEMPT_BY_HEADER,
    ATTEMPT_HEADER,
    CONTENT_TYPE_HEADER,
    JSON,
    PROJECT_HEADER,
    PROTOBUF,
    SIGNAL_HEADER,
    AttemptBy,
    Signal,
)
from leyden.events.outline import outline
from leyden.events.wellformed import well_formed_json, well_formed_protobuf, well_formed_text
from leyden.events.wire import MalformedError
from leyden.ids import AttemptRef, attempt_of_trace
from leyden.ingest.core.hex_ids import with_bytes_for_hex

MAX_JSON_DEPTH = 100


class UnreadableError(ValueError):
    """The whole record is invalid: no item of it can be decoded."""


@dataclass(frozen=True, slots=True)
class BadItem:
    """An item that cannot be decoded: the reason, and a request with only this item in the record's own encoding."""

    reason: str
    request: bytes


@dataclass(slots=True)
class Decoded:
    """A decoded record. Only the request of its own signal is filled; `project` and `attempt` come from the gateway."""

    signal: Signal
    content_type: str = PROTOBUF
    traces: ExportTraceServiceRequest = field(default_factory=ExportTraceServiceRequest)
    logs: ExportLogsServiceRequest = field(default_factory=ExportLogsServiceRequest)
    bad: list[BadItem] = field(default_factory=list)
    project: str | None = None
    attempt: AttemptRef | None = None
    attempt_by: AttemptBy | None = None


@dataclass(frozen=True, slots=True)
class _Form:
    """Field names of a signal's request, and the type of its items."""

    fields: tuple[str, str, str]
    names: tuple[str, str, str]
    item: type[Message]


_FORMS = {
    Signal.TRACES: _Form(("resource_spans", "scope_spans", "spans"), ("resourceSpans", "scopeSpans", "spans"), Span),
    Signal.LOGS: _Form(
        ("resource_logs", "scope_logs", "log_records"), ("resourceLogs", "scopeLogs", "logRecords"), LogRecord
    ),
}


def decode(value: bytes, headers: Mapping[str, str]) -> Decoded:
    """Decode a record. Invalid items are in `bad`; raises `UnreadableError` if nothing can be decoded."""
    try:
        decoded = Decoded(Signal(headers.get(SIGNAL_HEADER, Signal.TRACES)))
        decoded.attempt_by = AttemptBy(headers[ATTEMPT_BY_HEADER]) if ATTEMPT_BY_HEADER in headers else None
        form = _FORMS[decoded.signal]
    except (ValueError, KeyError) as error:
        raise UnreadableError(f"headers are not those of an OTLP record: {error}") from error
    decoded.content_type = headers.get(CONTENT_TYPE_HEADER, PROTOBUF)
    decoded.project = headers.get(PROJECT_HEADER)
    decoded.attempt = attempt_of_trace(headers.get(ATTEMPT_HEADER, ""))
    request: Any = decoded.logs if decoded.signal is Signal.LOGS else decoded.traces
    try:
        if decoded.content_type == JSON:
            decoded.bad = _read_json(request, form, value)
        else:
            decoded.bad = _read_protobuf(request, form, value)
    except (DecodeError, ParseError, orjson.JSONDecodeError, TypeError) as error:
        raise UnreadableError(f"body is not a valid OTLP {decoded.signal} request: {error}") from error
    return decoded


def _read_protobuf(request: Any, form: _Form, value: bytes) -> list[BadItem]:
    try:
        request.ParseFromString(value)
    except DecodeError:
        request.Clear()
        return _read_each(request, form, value)
    return []


def _read_each(request: Any, form: _Form, value: bytes) -> list[BadItem]:
    """Decode item by item: texts that are not UTF-8 are repaired, items that are invalid otherwise are set apart."""
    bad: list[BadItem] = []
    for group in outline(value).groups:
        into_group = getattr(request, form.fields[0]).add(schema_url=well_formed_text(group.schema_url))
        _parse_repaired(group.resource, into_group.resource)
        for scope in group.scopes:
            into_scope = getattr(into_group, form.fields[1]).add(schema_url=well_formed_text(scope.schema_url))
            _parse_repaired(scope.scope, into_scope.scope)
            items = getattr(into_scope, form.fields[2])
            for item in scope.items:
                try:
                    read = form.item()
                    _parse_repaired(item, read)
                    items.append(read)
                except DecodeError as error:
                    head: Any = type(request)()
                    alone = getattr(head, form.fields[0]).add(resource=into_group.resource)
                    getattr(alone, form.fields[1]).add(scope=into_scope.scope)
                    bad.append(BadItem(str(error), _with_item(head.SerializeToString(), item)))
    return bad


def _parse_repaired(value: bytes, into: Message) -> None:
    try:
        into.ParseFromString(value)
    except DecodeError as error:
        try:
            into.ParseFromString(well_formed_protobuf(value, into.DESCRIPTOR))
        except MalformedError:
            raise error from None


def _with_item(request: bytes, item: bytes) -> bytes:
    alone: Any = outline(request)
    alone.groups[0].scopes[0].items.append(item)
    whole: bytes = alone.SerializeToString()
    return whole


def _read_json(request: Any, form: _Form, value: bytes) -> list[BadItem]:
    bad: list[BadItem] = []
    for group in _list(_loaded(value), form.names[0]):
        into_group = getattr(request, form.fields[0]).add()
        _parse(group.get("resource"), into_group.resource)
        for scope in _list(group, form.names[1]):
            into_scope = getattr(into_group, form.fields[1]).add()
            _parse(scope.get("scope"), into_scope.scope)
            items = getattr(into_scope, form.fields[2])
            for item in _list(scope, form.names[2]):
                try:
                    read = form.item()
                    _parse(with_bytes_for_hex(item), read)
                    items.append(read)
                except (ParseError, ValueError, TypeError) as error:
                    scopes = [{**scope, form.names[2]: [item]}]
                    alone = {form.names[0]: [{**group, form.names[1]: scopes}]}
                    bad.append(BadItem(str(error), orjson.dumps(alone)))
    return bad


def _loaded(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return orjson.loads(well_formed_json(value))


def _parse(value: Any, into: Message) -> None:
    """Parse JSON into `into`. Unknown fields and enum names are ignored, as the OTLP specification requires."""
    if value is not None:
        ParseDict(value, into, ignore_unknown_fields=True, max_recursion_depth=MAX_JSON_DEPTH)


def _list(holder: Any, name: str) -> Sequence[Any]:
    found = holder.get(name) if isinstance(holder, dict) else None
    if found is None and isinstance(holder, dict):
        return []
    if not isinstance(found, list):
        raise ParseError(f"{name} must be a list")
    return found
