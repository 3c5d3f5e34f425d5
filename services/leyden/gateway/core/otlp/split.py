"""A large export request as several smaller ones, each whole in itself, cut between items without decoding any.

An item (a span, a log record) is never cut: one that is larger than the limit is alone in its request. What describes
its resource and scope is repeated in each part; a request in which that is a large part of the limit stays whole.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import msgspec

from leyden.events import wire
from leyden.events.otlp import JSON, Signal
from leyden.gateway.core.otlp.look import JsonGroup, JsonScope, read_json
from leyden.gateway.core.refusals import Refusal

MAX_ITEMS = 1_000_000
"""Items in a request that is cut: 64 MiB of real spans are at most a fifth of it, of empty ones thirty times it."""
MAX_BRACES = 4 * MAX_ITEMS
HEAD_SHARE = 4
RUN_SHARE = 16
GROUPS, SCOPES, ITEMS = 1, 2, 2
"""Field numbers of what is repeated in a request, a group and a scope; the rest of the latter two is their head."""

Bytes = bytes | memoryview


def split(signal: Signal, content_type: str, body: bytes, limit: int) -> list[bytes]:
    """Requests of at most about `limit` bytes that together are `body`, in its order.

    Raises a `Refusal`: 400 for what is no request, 413 for too many items.
    """
    if len(body) <= limit:
        return [body]
    cut, form = (_cut_json(body), _Json(signal)) if content_type == JSON else (_cut_protobuf(body, limit), _Protobuf())
    if max(map(len, [*cut.group_heads, *cut.scope_heads]), default=0) > limit // HEAD_SHARE:
        return [body]
    return [_request(cut, part, form) for part in _parts(cut, limit)]


class _Form(Protocol):
    """How a request is put together in one encoding."""

    def scope(self, head: bytes, items: Sequence[Bytes]) -> bytes: ...
    def group(self, head: bytes, scopes: Sequence[bytes]) -> bytes: ...
    def request(self, groups: Sequence[bytes]) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Item:
    """The bytes of an item, or of neighbours, and the numbers of the heads that they are under."""

    group: int
    scope: int
    data: Bytes


@dataclass(slots=True)
class _Cut:
    """A request cut open: heads by number, items in order."""

    group_heads: list[bytes] = field(default_factory=list)
    scope_heads: list[bytes] = field(default_factory=list)
    items: list[_Item] = field(default_factory=list)
    seen: int = 0
    """How many items, also where several neighbours are taken as one."""

    def must_be_bounded(self) -> None:
        """Raise a 413 for more items, scopes and groups than any real request has."""
        if self.seen + len(self.scope_heads) + len(self.group_heads) > MAX_ITEMS:
            raise _too_many()

    def cost(self, item: _Item, before: _Item | None) -> int:
        """Bytes that `item` adds to a part that ends with `before`."""
        cost = len(item.data)
        if before is None or before.scope != item.scope:
            cost += len(self.scope_heads[item.scope])
        if before is None or before.group != item.group:
            cost += len(self.group_heads[item.group])
        return cost


def _parts(cut: _Cut, limit: int) -> Iterator[list[_Item]]:
    part: list[_Item] = []
    size = 0
    for item in cut.items:
        cost = cut.cost(item, part[-1] if part else None)
        if part and size + cost > limit:
            yield part
            part, size, cost = [], 0, cut.cost(item, None)
        part.append(item)
        size += cost
    if part:
        yield part


def _request(cut: _Cut, items: list[_Item], form: _Form) -> bytes:
    groups = []
    for group, in_group in groupby(items, key=lambda item: item.group):
        scopes = [
            form.scope(cut.scope_heads[scope], [item.data for item in in_scope])
            for scope, in_scope in groupby(in_group, key=lambda item: item.scope)
        ]
        groups.append(form.group(cut.group_heads[group], scopes))
    return form.request(groups)


class _Protobuf:
    def scope(self, head: bytes, items: Sequence[Bytes]) -> bytes:
        return _field(SCOPES, b"".join([head, *items]))

    def group(self, head: bytes, scopes: Sequence[bytes]) -> bytes:
        return _field(GROUPS, b"".join([head, *scopes]))

    def request(self, groups: Sequence[bytes]) -> bytes:
        return b"".join(groups)


def _field(number: int, value: bytes) -> bytes:
    return wire.prefix(number, len(value)) + value


def _runs(items: Iterable[wire.Field], limit: int) -> Iterator[tuple[int, int]]:
    """Where neighbours begin and end, so many together that they are still a small part of a request."""
    first = last = -1
    for _, tag, _, stop in items:
        if tag != last or stop - first > limit:
            if first >= 0:
                yield first, last
            first = tag
        last = stop
    if first >= 0:
        yield first, last


def _cut_protobuf(body: bytes, limit: int) -> _Cut:
    cut = _Cut()
    view = memoryview(body)
    try:
        for number, _, start, end in wire.fields(body, 0, len(body)):
            if number != GROUPS:
                continue
            head, scopes = _parted(body, start, end)
            cut.group_heads.append(head)
            for _, _, scope_start, scope_end in scopes:
                head, items = _parted(body, scope_start, scope_end)
                cut.scope_heads.append(head)
                group, scope = len(cut.group_heads) - 1, len(cut.scope_heads) - 1
                cut.seen += len(items)
                cut.items += [_Item(group, scope, view[first:last]) for first, last in _runs(items, limit // RUN_SHARE)]
                cut.must_be_bounded()
            cut.must_be_bounded()
    except wire.MalformedError as error:
        raise Refusal(400, "invalid_protobuf", f"the body is not a valid OTLP protobuf request: {error}") from error
    return cut


def _parted(body: bytes, start: int, end: int) -> tuple[bytes, list[wire.Field]]:
    """A message's head, in bytes, and its repeated field."""
    head: list[bytes] = []
    repeated: list[wire.Field] = []
    for one in wire.fields(body, start, end):
        if one[0] == ITEMS:
            repeated.append(one)
        else:
            head.append(body[one[1] : one[3]])
        if len(repeated) + len(head) > MAX_ITEMS:
            raise _too_many()
    return b"".join(head), repeated


class _Json:
    def __init__(self, signal: Signal) -> None:
        names = ("Spans", "spans") if signal is Signal.TRACES else ("Logs", "logRecords")
        self._groups, self._scopes, self._items = (
            f'"{name}":['.encode() for name in (f"resource{names[0]}", f"scope{names[0]}", names[1])
        )

    def scope(self, head: bytes, items: Sequence[Bytes]) -> bytes:
        return b"".join([b"{", head, self._items, b",".join(items), b"]}"])

    def group(self, head: bytes, scopes: Sequence[bytes]) -> bytes:
        return b"".join([b"{", head, self._scopes, b",".join(scopes), b"]}"])

    def request(self, groups: Sequence[bytes]) -> bytes:
        return b"".join([b"{", self._groups, b",".join(groups), b"]}"])


def _cut_json(body: bytes) -> _Cut:
    if body.count(b"{") > MAX_BRACES:
        raise _too_many()
    cut = _Cut()
    for group in read_json(body).groups:
        cut.group_heads.append(_head(group, b'"resource":', group.resource))
        for scope in group.scopes:
            cut.scope_heads.append(_head(scope, b'"scope":', scope.scope))
            numbers = len(cut.group_heads) - 1, len(cut.scope_heads) - 1
            cut.items += [_Item(*numbers, memoryview(item)) for item in scope.items]
    return cut


def _head(of: JsonGroup | JsonScope, name: bytes, about: msgspec.Raw) -> bytes:
    named = ((name, bytes(about)), (b'"schemaUrl":', bytes(of.schema_url)))
    return b"".join(name + value + b"," for name, value in named if value)


def _too_many() -> Refusal:
    return Refusal(413, "too_many_items", f"one request may hold {MAX_ITEMS} spans or log records at most")
