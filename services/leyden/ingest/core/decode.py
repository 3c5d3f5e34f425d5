"""Decodes a record of `otlp.v1` into OTLP messages. `leyden.events.otlp` documents the record's format.

An item (span or log record) that cannot be decoded is reported on its own; the other items of the request are kept. A
bad value costs only itself (see `salvage`), also in the resource or the scope that describes many items.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.json_format import ParseError
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from leyden.events import wire
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
from leyden.events.outline import OutlineGroup, outline
from leyden.events.wellformed import well_formed_json, well_formed_protobuf, well_formed_text
from leyden.events.wire import MalformedError
from leyden.ids import AttemptRef, attempt_of_trace
from leyden.ingest.core.hex_ids import with_bytes_for_hex
from leyden.ingest.core.salvage import WRONG, dumped, parse_salvaged


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
    salvaged: int = 0
    """How many resources, scopes and items were read although a value in them was not valid."""
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
        read = _read_json if decoded.content_type == JSON else _read_protobuf
        read(decoded, request, form, value)
    except (DecodeError, ParseError, orjson.JSONDecodeError, TypeError) as error:
        raise UnreadableError(f"body is not a valid OTLP {decoded.signal} request: {error}") from error
    if decoded.salvaged and not decoded.bad and not _has_items(request, form):
        raise UnreadableError(f"body is not a valid OTLP {decoded.signal} request: no part of it can be read")
    return decoded


def _has_items(request: Any, form: _Form) -> bool:
    groups, scopes, items = form.fields
    return any(getattr(scope, items) for group in getattr(request, groups) for scope in getattr(group, scopes))


def _read_protobuf(decoded: Decoded, request: Any, form: _Form, value: bytes) -> None:
    try:
        request.ParseFromString(value)
    except DecodeError:
        request.Clear()
    else:
        return
    try:
        groups = outline(value).groups
    except DecodeError:
        groups = list(_groups_one_by_one(decoded, value))
    for group in groups:
        _read_group(decoded, request, form, group)


def _groups_one_by_one(decoded: Decoded, value: bytes) -> Iterator[OutlineGroup]:
    """The groups that can be read, of a request of which a part is no message at all; the others are set apart."""
    at = 0
    try:
        for _, tag, _, at in wire.fields(value, 0, len(value)):
            raw = value[tag:at]
            try:
                yield from outline(raw).groups
            except DecodeError as error:
                decoded.bad.append(BadItem(str(error), raw))
    except MalformedError as error:
        if at == 0:
            raise DecodeError(str(error)) from error
        decoded.bad.append(BadItem(str(error), value[at:]))


def _read_group(decoded: Decoded, request: Any, form: _Form, group: OutlineGroup) -> None:
    """Read item by item: texts that are not UTF-8 are repaired, items that are invalid otherwise are set apart."""
    into_group = getattr(request, form.fields[0]).add(schema_url=well_formed_text(group.schema_url))
    decoded.salvaged += _parse_if_possible(group.resource, into_group.resource)
    for scope in group.scopes:
        into_scope = getattr(into_group, form.fields[1]).add(schema_url=well_formed_text(scope.schema_url))
        decoded.salvaged += _parse_if_possible(scope.scope, into_scope.scope)
        items = getattr(into_scope, form.fields[2])
        for item in scope.items:
            try:
                read = form.item()
                decoded.salvaged += _parse_repaired(item, read)
                items.append(read)
            except DecodeError as error:
                head: Any = type(request)()
                alone = getattr(head, form.fields[0]).add(resource=into_group.resource)
                getattr(alone, form.fields[1]).add(scope=into_scope.scope)
                decoded.bad.append(BadItem(str(error), _with_item(head.SerializeToString(), item)))


def _parse_repaired(value: bytes, into: Message) -> bool:
    """Parse `value`; returns whether it had to be repaired."""
    try:
        into.ParseFromString(value)
    except DecodeError as error:
        try:
            into.ParseFromString(well_formed_protobuf(value, into.DESCRIPTOR))
        except MalformedError:
            raise error from None
        return True
    return False


def _parse_if_possible(value: bytes, into: Message) -> bool:
    """Parse what describes other items, or leave it empty: it must not cost them."""
    try:
        return _parse_repaired(value, into)
    except DecodeError:
        into.Clear()
        return True


def _with_item(request: bytes, item: bytes) -> bytes:
    alone: Any = outline(request)
    alone.groups[0].scopes[0].items.append(item)
    whole: bytes = alone.SerializeToString()
    return whole


def _read_json(decoded: Decoded, request: Any, form: _Form, value: bytes) -> None:
    groups, scopes, items = form.names
    for group in _list(_loaded(value), groups):
        try:
            in_group = _list(group, scopes)
        except ParseError as error:
            decoded.bad.append(BadItem(str(error), dumped({groups: [group]})))
            continue
        into_group = getattr(request, form.fields[0]).add()
        decoded.salvaged += parse_salvaged(group.get("resource"), into_group.resource, leniently=True)
        for scope in in_group:
            try:
                in_scope = _list(scope, items)
            except ParseError as error:
                decoded.bad.append(BadItem(str(error), dumped({groups: [{**group, scopes: [scope]}]})))
                continue
            into_scope = getattr(into_group, form.fields[1]).add()
            decoded.salvaged += parse_salvaged(scope.get("scope"), into_scope.scope, leniently=True)
            for item in in_scope:
                try:
                    read = form.item()
                    decoded.salvaged += parse_salvaged(with_bytes_for_hex(item), read)
                    getattr(into_scope, form.fields[2]).append(read)
                except WRONG as error:
                    alone = {groups: [{**group, scopes: [{**scope, items: [item]}]}]}
                    decoded.bad.append(BadItem(str(error), dumped(alone)))


def _loaded(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return orjson.loads(well_formed_json(value))


def _list(holder: Any, name: str) -> Sequence[Any]:
    found = holder.get(name) if isinstance(holder, dict) else None
    if found is None and isinstance(holder, dict):
        return []
    if not isinstance(found, list):
        raise ParseError(f"{name} must be a list")
    return found
