"""Events gathered by what they belong to (a rollout, a group) until there are enough of them to decide.

Everything is idempotent: an item added twice is there once, a subject closed twice is closed. Nothing here decides.
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
    """Items by subject, for one service. An item's id holds no line break and is not empty."""

    async def add(self, items: Iterable[tuple[str, str, bytes]]) -> set[str]:
        """Keep (subject, item id, bytes), of one id the first. Returns the closed subjects: their items are let go."""
        ...

    async def load(self, subjects: Sequence[str]) -> Mapping[str, Items]:
        """All items of each subject that is open and has any."""
        ...

    async def names(self, subjects: Sequence[str]) -> Mapping[str, list[str]]:
        """The ids of the items of each subject that is open and has any: enough to see whether to load them."""
        ...

    async def pick(self, wanted: Mapping[str, Sequence[str]]) -> Mapping[str, Items]:
        """Of each subject the items of these ids that are there."""
        ...

    async def keep(self, subjects: Sequence[str], for_s: float) -> None:
        """Leave `subjects` open for so long, whatever else comes; then they are closed by themselves."""
        ...

    async def close(self, subjects: Sequence[str]) -> None:
        """Forget the items of `subjects`, and that they were ever open but for a mark that expires."""
        ...


class MemoryEvidenceStore:
    """The same in memory, without expiry; for tests and for one-off runs."""

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
        """Nothing expires here."""

    async def close(self, subjects: Sequence[str]) -> None:
        for subject in subjects:
            self._open.pop(subject, None)
            self._closed.add(subject)


class RedisEvidenceStore:
    """Hashes in Redis under `namespace`; one command a call, whatever the number of items, and it is atomic.

    A closed subject leaves a mark for `closed_ttl_s`, longer than any redelivery, so that a late duplicate does not
    open it again; an open one that nobody closes goes after `open_ttl_s`.
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
        return {subjects[place] for place in closed}

    async def load(self, subjects: Sequence[str]) -> Mapping[str, Items]:
        distinct = list(dict.fromkeys(subjects))
        raw = iter(cast(list[bytes], await self._run(self._items_of, map(self._key, distinct))))
        loaded = zip(distinct, raw, raw, raw, strict=True)
        return {subject: _items(ids, sizes, values) for subject, ids, sizes, values in loaded if ids}

    async def names(self, subjects: Sequence[str]) -> Mapping[str, list[str]]:
        distinct = list(dict.fromkeys(subjects))
        found = cast(list[bytes], await self._run(self._ids_of, map(self._key, distinct)))
        return {subject: ids.decode().split("\n") for subject, ids in zip(distinct, found, strict=True) if ids}

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
        """What `script` answers; a script that is given no subject is not run and answers nothing."""
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


def _items(ids: bytes, sizes: bytes, values: bytes) -> Items:
    """Lines of ids, and the values one after the other, as items."""
    items: Items = {}
    start = 0
    for item_id, size in zip(ids.decode().split("\n"), map(int, sizes.split()), strict=True):
        items[item_id] = values[start : start + size]
        start += size
    return items
