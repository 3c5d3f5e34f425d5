"""Redis behind `WaitingAttempts`, and reward functions found by name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from leyden.kafka.delivered import Retry
from leyden.reward.core.rules import RewardFunction
from leyden.settings import RunFileError

GROUP = "leyden.reward_functions"


class RedisWaitingAttempts:
    """A sorted set by deadline under `namespace`, and one key that expires for "behind"."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._deadlines = f"{namespace}:deadlines"
        self._behind = f"{namespace}:behind"

    async def add(self, deadlines: Mapping[str, datetime]) -> None:
        if deadlines:
            with _redis_or_retry():
                await self._redis.zadd(self._deadlines, {s: at.timestamp() for s, at in deadlines.items()}, nx=True)

    async def among(self, subjects: Sequence[str]) -> list[str]:
        distinct = list(dict.fromkeys(subjects))
        if not distinct:
            return []
        with _redis_or_retry():
            scores = await self._redis.zmscore(self._deadlines, distinct)
        return [subject for subject, score in zip(distinct, scores, strict=True) if score is not None]

    async def remove(self, subjects: Sequence[str]) -> None:
        if subjects:
            with _redis_or_retry():
                await self._redis.zrem(self._deadlines, *subjects)

    async def due(self, now: datetime, limit: int) -> list[str]:
        with _redis_or_retry():
            found = await self._redis.zrangebyscore(self._deadlines, "-inf", now.timestamp(), start=0, num=limit)
        return [subject.decode() for subject in cast(list[bytes], found)]

    async def put_off(self, subjects: Sequence[str], until: datetime) -> None:
        if subjects:
            with _redis_or_retry():
                await self._redis.zadd(self._deadlines, dict.fromkeys(subjects, until.timestamp()), xx=True)

    async def mark_behind(self, for_s: float) -> None:
        with _redis_or_retry():
            await self._redis.set(self._behind, b"1", px=max(1, round(for_s * 1000)))

    async def behind(self) -> bool:
        with _redis_or_retry():
            return bool(await self._redis.exists(self._behind))


@contextmanager
def _redis_or_retry() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise Retry(f"Redis did not answer: {error}") from error


def load_function(entry: str) -> RewardFunction:
    """The reward function of an entry point's name or of `module:function`; raises `RunFileError` naming the remedy."""
    known = {point.name: point for point in entry_points(group=GROUP)}
    module, colon, name = entry.partition(":")
    try:
        if entry in known:
            found = known[entry].load()
        elif colon:
            found = getattr(import_module(module), name)
        else:
            names = ", ".join(sorted(known)) or "none is installed"
            raise RunFileError(f"reward function {entry!r}: no entry point of {GROUP} ({names}), nor module:function")
    except (ImportError, AttributeError) as error:
        raise RunFileError(f"reward function {entry!r} cannot be imported: {error}") from error
    if not callable(found):
        raise RunFileError(f"reward function {entry!r} is a {type(found).__name__}, not a function")
    function: RewardFunction = found
    return function
