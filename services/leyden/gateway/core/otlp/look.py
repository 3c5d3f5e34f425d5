"""What can be known of an export request without decoding it: that it is one, what it holds, a trace id as its key.

A request in protobuf is parsed down to its items (see `leyden.events.outline`); one in JSON likewise, with the items
left as raw text. What is inside an item is not looked at.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
from google.protobuf.message import DecodeError

from leyden.events import wire
from leyden.events.otlp import JSON, Signal
from leyden.events.outline import outline
from leyden.gateway.core.refusals import Refusal

TRACE_ID_FIELD = {Signal.TRACES: 1, Signal.LOGS: 9}
TRACE_ID_BYTES = 16
JSON_TRACE_ID = re.compile(rb'"traceId"\s*:\s*"([0-9a-fA-F]{32})"')


class JsonScope(msgspec.Struct, rename="camel"):
    """Items of one instrumentation scope. An item is under the name of its signal; the others are empty."""

    scope: msgspec.Raw = msgspec.Raw()
    schema_url: msgspec.Raw = msgspec.Raw()
    spans: list[msgspec.Raw] | None = None
    log_records: list[msgspec.Raw] | None = None

    @property
    def items(self) -> list[msgspec.Raw]:
        """Spans or log records, whichever there are."""
        return self.spans or self.log_records or []


class JsonGroup(msgspec.Struct, rename="camel"):
    """Scopes of one resource."""

    resource: msgspec.Raw = msgspec.Raw()
    schema_url: msgspec.Raw = msgspec.Raw()
    scope_spans: list[JsonScope] | None = None
    scope_logs: list[JsonScope] | None = None

    @property
    def scopes(self) -> list[JsonScope]:
        """Of spans or of log records, whichever there are."""
        return self.scope_spans or self.scope_logs or []


class JsonRequest(msgspec.Struct, rename="camel"):
    """An export request in JSON; fields that are not named here are ignored, as OTLP has it."""

    resource_spans: list[JsonGroup] | None = None
    resource_logs: list[JsonGroup] | None = None

    @property
    def groups(self) -> list[JsonGroup]:
        """Of spans or of log records, whichever there are."""
        return self.resource_spans or self.resource_logs or []


_JSON = msgspec.json.Decoder(JsonRequest)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a request: how many items it holds, and the first trace id in it (empty: none)."""

    items: int
    trace_id: str = ""


def look(signal: Signal, content_type: str, body: bytes) -> Seen:
    """Count a request's items. Raises a 400 `Refusal` for a body that is not an export request of `signal`."""
    return _look_json(signal, body) if content_type == JSON else _look_protobuf(signal, body)


def read_json(body: bytes) -> JsonRequest:
    """A request in JSON down to its items; raises a 400 `Refusal`."""
    try:
        return _JSON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "invalid_json", f"the body is not a valid OTLP JSON request: {error}") from error


def _look_json(signal: Signal, body: bytes) -> Seen:
    request = read_json(body)
    others = request.resource_logs if signal is Signal.TRACES else request.resource_spans
    if others:
        raise Refusal(
            400, "wrong_signal", f"the body holds another signal than {signal}: send it to that signal's route"
        )
    items = [item for group in request.groups for scope in group.scopes for item in scope.items]
    found = JSON_TRACE_ID.search(items[0]) if items else None
    return Seen(len(items), found[1].decode().lower() if found else "")


def _look_protobuf(signal: Signal, body: bytes) -> Seen:
    count = 0
    first: bytes | None = None
    try:
        for items in _scopes(body):
            if items and first is None:
                first = items[0]
            count += len(items)
        return Seen(count, _trace_id(first, TRACE_ID_FIELD[signal]) if first is not None else "")
    except (DecodeError, wire.MalformedError) as error:
        raise Refusal(400, "invalid_protobuf", f"the body is not a valid OTLP protobuf request: {error}") from error


def _scopes(body: bytes) -> Iterator[Sequence[bytes]]:
    for group in outline(body).groups:
        for scope in group.scopes:
            yield scope.items


def _trace_id(item: bytes, field: int) -> str:
    for number, _, start, end in wire.fields(item, 0, len(item)):
        if number == field and end - start == TRACE_ID_BYTES:
            return item[start:end].hex()
    return ""


MAX_NAMED = 1000
"""Rollouts in one request of a project's key; each is looked up."""
_AS_TEXT = re.compile(rb"1e7de[0-9a-f]{23}", re.IGNORECASE)
_AS_BYTES = re.compile(rb"(?s)\x1e\x7d[\xe0-\xef].{11}")


def rollouts_named(content_type: str, body: bytes) -> set[str]:
    """Ids of rollouts that occur anywhere in a request, as text or in trace ids; by chance also bytes that are none.

    Raises a 413 `Refusal` for more than `MAX_NAMED`, a 400 for text that is not JSON.
    """
    if content_type == JSON and b"\\u" in body:  # escapes could hide an id
        try:
            body = msgspec.json.encode(msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refusal(400, "invalid_json", f"the body is not a valid OTLP JSON request: {error}") from error
    found: set[str] = set()
    for named in _ids_in(content_type, body):
        found.add(named)
        if len(found) > MAX_NAMED:
            raise Refusal(413, "too_many_rollouts", f"a request may name at most {MAX_NAMED} rollouts: send fewer")
    return found


def _ids_in(content_type: str, body: bytes) -> Iterator[str]:
    for match in _AS_TEXT.finditer(body):
        yield match[0].decode().lower()
    if content_type != JSON:
        for match in _AS_BYTES.finditer(body):
            yield match[0].hex()
