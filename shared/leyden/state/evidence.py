"""Collects events by subject (a rollout, a group) until a service can decide on them.

All operations are idempotent: adding an item twice or closing a subject twice changes nothing.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Protocol, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from leyden.state import scripts
from leyden.state.faults import redis_or_retry

Items = dict[str, bytes]
"""Item id → bytes."""


class EvidenceStore(Protocol):
    """Items by subject, for one service. Subjects and item ids may be any text."""

    async def add(self, items: Iterable[tuple[str, str, bytes]]) -> set[str]:
        """Store (subject, item id, bytes); the first item of an id is kept.

        Returns the subjects that are closed; their items are not stored.
        """
        ...

    async def load(self, subjects: Sequence[str]) -> Mapping[str, Items]:
        """All items of the subjects that are open and have any."""
        ...

    async def names(self, subjects: Sequence[str]) -> Mapping[str, list[str]]:
        """The item ids of the subjects that are open and have any. Cheaper than `load`."""
        ...

    async def pick(self, wanted: Mapping[str, Sequence[str]]) -> Mapping[str, Items]:
        """The items with these ids, by subject; missing ones are omitted."""
        ...

    async def keep(self, subjects: Sequence[str], for_s: float) -> None:
        """Close `subjects` automatically after `for_s` seconds. Items added later do not extend this."""
        ...

    async def close(self, subjects: Sequence[str]) -> None:
        """Delete the items of `subjects` and mark them as closed; the mark expires."""
        ...


class MemoryEvidenceStore:
    """`EvidenceStore` in memory, without expiry, for tests and one-off runs."""

    def __init__(self) -> None:
        self._open: dict[str, Items] = {}
        self._closed: set[str] = set()

    async def add(self, items: Iterable[tuple[str, str, bytes]]) -> set[str]:
        closed = set()
        for subject, item_id, value in items:
            if subject in self._closed:
                closed.add(subject)
            else:
                self._open.setdefault(subject, {}).setdefault(item_id, value)
        return closed

    async def load(self, subjects: Sequence[str]) -> Mapping[str, Items]:
        return {subject: dict(self._open[subject]) for subject in dict.fromkeys(subjects) if subject in self._open}

    async def names(self, subjects: Sequence[str]) -> Mapping[str, list[str]]:
        return {subject: list(items) for subject, items in (await self.load(subjects)).items()}

    async def pick(self, wanted: Mapping[str, Sequence[str]]) -> Mapping[str, Items]:
        loaded = await self.load(list(wanted))
        return {subject: {i: items[i] for i in wanted[subject] if i in items} for subject, items in loaded.items()}

    async def keep(self, subjects: Sequence[str], for_s: float) -> None:
        """No-op: nothing expires."""

    async def close(self, subjects: Sequence[str]) -> None:
        for subject in subjects:
            self._open.pop(subject, None)
            self._closed.add(subject)


class RedisEvidenceStore:
    """`EvidenceStore` as Redis hashes under `namespace`. Each method is one atomic command for any number of items.

    A closed subject keeps a mark for `closed_ttl_s`, longer than any redelivery, so that a late duplicate does not open
    it again. An open subject expires after `open_ttl_s`.
    """

    def __init__(self, redis: Redis, namespace: str, closed_ttl_s: int = 86_400, open_ttl_s: int = 7 * 86_400) -> None:
        self._namespace = namespace
        self._closed_ttl_s = closed_ttl_s
        self._open_ttl_s = open_ttl_s
        self._add, self._keep, self._close, self._ids_of, self._items_of, self._pick = map(
            redis.register_script,
            (scripts.ADD, scripts.KEEP, scripts.CLOSE, scripts.IDS_OF, scripts.ITEMS_OF, scripts.PICK),
        )

    async def add(self, items: Iterable[tuple[str, str, bytes]]) -> set[str]:
        gathered: dict[str, Items] = {}
        for subject, item_id, value in items:
            gathered.setdefault(subject, {}).setdefault(item_id, value)
        subjects = list(gathered)
        arguments: list[bytes | str | int] = [self._open_ttl_s]
        for found in gathered.values():
            arguments.append(len(found))
            arguments.extend(chain.from_iterable(found.items()))
        closed = cast(list[int], await self._run(self._add, self._keys_and_marks(subjects), arguments))
        return {subjects[index] for index in closed}

    async def load(self, subjects: Sequence[str]) -> Mapping[str, Items]:
        distinct = list(dict.fromkeys(subjects))
        raw = iter(cast(list[bytes], await self._run(self._items_of, map(self._key, distinct))))
        return {
            subject: _items(sizes, parts) for subject, sizes, parts in zip(distinct, raw, raw, strict=True) if sizes
        }

    async def names(self, subjects: Sequence[str]) -> Mapping[str, list[str]]:
        distinct = list(dict.fromkeys(subjects))
        raw = iter(cast(list[bytes], await self._run(self._ids_of, map(self._key, distinct))))
        found = zip(distinct, raw, raw, strict=True)
        return {subject: [item_id.decode() for item_id in _parts(sizes, ids)] for subject, sizes, ids in found if sizes}

    async def pick(self, wanted: Mapping[str, Sequence[str]]) -> Mapping[str, Items]:
        asked = [(subject, item_id) for subject, ids in wanted.items() for item_id in ids]
        keys, ids = [self._key(subject) for subject, _ in asked], [item_id for _, item_id in asked]
        found = cast(list[bytes | None], await self._run(self._pick, keys, ids))
        picked: dict[str, Items] = {}
        for (subject, item_id), value in zip(asked, found, strict=True):
            if value is not None:
                picked.setdefault(subject, {})[item_id] = value
        return picked

    async def keep(self, subjects: Sequence[str], for_s: float) -> None:
        open_s = math.ceil(for_s)
        await self._run(
            self._keep, self._keys_and_marks(dict.fromkeys(subjects)), [open_s, open_s + self._closed_ttl_s]
        )

    async def close(self, subjects: Sequence[str]) -> None:
        await self._run(self._close, self._keys_and_marks(dict.fromkeys(subjects)), [self._closed_ttl_s])

    async def _run(
        self, script: AsyncScript, keys: Iterable[str], arguments: Sequence[bytes | str | int] = ()
    ) -> Sequence[object]:
        """The result of `script`; empty, without running it, if there are no keys."""
        named = list(keys)
        if not named:
            return []
        with redis_or_retry():
            return cast(Sequence[object], await script(named, arguments))

    def _keys_and_marks(self, subjects: Iterable[str]) -> Iterator[str]:
        for subject in subjects:
            yield self._key(subject)
            yield self._mark(subject)

    def _key(self, subject: str) -> str:
        return f"{self._namespace}:open:{subject}"

    def _mark(self, subject: str) -> str:
        return f"{self._namespace}:closed:{subject}"


def _items(sizes: bytes, joined: bytes) -> Items:
    """Items from alternating ids and values."""
    parts = _parts(sizes, joined)
    return {item_id.decode(): value for item_id, value in zip(parts, parts, strict=True)}


def _parts(sizes: bytes, joined: bytes) -> Iterator[bytes]:
    """The pieces of `joined`, given their sizes separated by spaces."""
    start = 0
    for size in map(int, sizes.split()):
        yield joined[start : start + size]
        start += size
