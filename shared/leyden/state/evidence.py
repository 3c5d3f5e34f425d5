"""Events gathered by what they belong to (a rollout, a group) until there are enough of them to decide.

Everything is idempotent: an item added twice is there once, a subject closed twice is closed. Nothing here decides.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from leyden.kafka.delivered import Retry

Items = dict[str, bytes]
"""Item id → bytes."""


class EvidenceStore(Protocol):
    """Items by subject, for one service."""

    async def add(self, items: Iterable[tuple[str, str, bytes]]) -> None:
        """Keep (subject, item id, bytes); the first bytes of an id stay. Items of a closed subject are let go."""
        ...

    async def load(self, subjects: Sequence[str]) -> Mapping[str, Items]:
        """All items of each subject that is open and has any."""
        ...

    async def close(self, subjects: Sequence[str]) -> None:
        """Forget the items of `subjects`, and that they were ever open but for a mark that expires."""
        ...


class MemoryEvidenceStore:
    """The same in memory, without expiry; for tests and for one-off runs."""

    def __init__(self) -> None:
        self._open: dict[str, Items] = {}
        self._closed: set[str] = set()

    async def add(self, items: Iterable[tuple[str, str, bytes]]) -> None:
        for subject, item_id, value in items:
            if subject not in self._closed:
                self._open.setdefault(subject, {}).setdefault(item_id, value)

    async def load(self, subjects: Sequence[str]) -> Mapping[str, Items]:
        return {subject: dict(self._open[subject]) for subject in dict.fromkeys(subjects) if subject in self._open}

    async def close(self, subjects: Sequence[str]) -> None:
        for subject in subjects:
            self._open.pop(subject, None)
            self._closed.add(subject)


class RedisEvidenceStore:
    """Hashes in Redis under `namespace`; one round trip a call, whatever the number of items.

    A closed subject leaves a mark for `closed_ttl_s`, longer than any redelivery, so that a late duplicate does not
    open it again; an open one that nobody closes goes after `open_ttl_s`.
    """

    def __init__(self, redis: Redis, namespace: str, closed_ttl_s: int = 86_400, open_ttl_s: int = 7 * 86_400) -> None:
        self._redis = redis
        self._namespace = namespace
        self._closed_ttl_s = closed_ttl_s
        self._open_ttl_s = open_ttl_s

    async def add(self, items: Iterable[tuple[str, str, bytes]]) -> None:
        gathered: dict[str, Items] = {}
        for subject, item_id, value in items:
            gathered.setdefault(subject, {}).setdefault(item_id, value)
        closed = await self._closed_among(list(gathered))
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for subject, found in gathered.items():
                    if subject in closed:
                        continue
                    for item_id, value in found.items():
                        pipe.hsetnx(self._key(subject), item_id, value)
                    pipe.expire(self._key(subject), self._open_ttl_s)
                await pipe.execute()
        except RedisError as error:
            raise Retry(f"Redis did not keep the evidence: {error}") from error

    async def load(self, subjects: Sequence[str]) -> Mapping[str, Items]:
        distinct = list(dict.fromkeys(subjects))
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for subject in distinct:
                    pipe.hgetall(self._key(subject))
                found = await pipe.execute()
        except RedisError as error:
            raise Retry(f"Redis did not answer: {error}") from error
        raw = cast(list[dict[bytes, bytes]], found)
        return {s: {i.decode(): v for i, v in items.items()} for s, items in zip(distinct, raw, strict=True) if items}

    async def close(self, subjects: Sequence[str]) -> None:
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                for subject in dict.fromkeys(subjects):
                    pipe.delete(self._key(subject))
                    pipe.set(self._mark(subject), b"1", ex=self._closed_ttl_s)
                await pipe.execute()
        except RedisError as error:
            raise Retry(f"Redis did not close: {error}") from error

    async def _closed_among(self, subjects: list[str]) -> set[str]:
        if not subjects:
            return set()
        try:
            marks = await self._redis.mget([self._mark(subject) for subject in subjects])
        except RedisError as error:
            raise Retry(f"Redis did not answer: {error}") from error
        return {subject for subject, mark in zip(subjects, marks, strict=True) if mark is not None}

    def _key(self, subject: str) -> str:
        return f"{self._namespace}:open:{subject}"

    def _mark(self, subject: str) -> str:
        return f"{self._namespace}:closed:{subject}"
