"""The stores of credit in Redis, under its own key prefix."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

from redis.asyncio import Redis

from leyden.credit.ports import OpenCount, Stores
from leyden.credit.settings import CreditSettings
from leyden.service import Runtime
from leyden.state import RedisBacklog, RedisEvidenceStore, RedisPositions, redis_or_retry

EXPIRY_MARGIN_S = 86_400
"""Seconds by which Redis expires open evidence later than the sweeper, which counts what it forgets."""


def redis_stores(runtime: Runtime, settings: CreditSettings) -> Stores:
    """All stores of this service; a named credit service has its own."""
    named = _named(runtime, settings)

    def evidence(what: str) -> RedisEvidenceStore:
        ttl = settings.open_ttl_s + EXPIRY_MARGIN_S
        return RedisEvidenceStore(runtime.redis, named.namespace(what), settings.closed_ttl_s, ttl)

    def subjects(what: str) -> RedisOpenSubjects:
        return RedisOpenSubjects(runtime.redis, named.namespace(what))

    return Stores(
        attempts=evidence("attempts"),
        groups=evidence("groups"),
        open_attempts=subjects("open-attempts"),
        open_groups=subjects("open-groups"),
        deadlines=subjects("deadlines"),
        backlog=RedisBacklog(runtime.redis, named.namespace("behind")),
    )


def redis_positions(runtime: Runtime, settings: CreditSettings) -> RedisPositions:
    """How far these stores include the partitions that credit reads."""
    return RedisPositions(runtime.redis, _named(runtime, settings).namespace("read"))


def _named(runtime: Runtime, settings: CreditSettings) -> Runtime:
    return replace(runtime, name=f"{runtime.name}-{settings.name}") if settings.name else runtime


class RedisOpenSubjects:
    """`OpenSubjects` as a sorted set; the score is the time at which a subject was first seen."""

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis = redis
        self._key = key

    async def seen(self, subjects: Sequence[str], now: datetime) -> None:
        if subjects:
            with redis_or_retry():
                await self._redis.zadd(self._key, dict.fromkeys(subjects, now.timestamp()), nx=True)

    async def gone(self, subjects: Sequence[str]) -> None:
        if subjects:
            with redis_or_retry():
                await self._redis.zrem(self._key, *subjects)

    async def before(self, moment: datetime, limit: int) -> list[str]:
        with redis_or_retry():
            found = await self._redis.zrangebyscore(self._key, "-inf", moment.timestamp(), start=0, num=limit)
        return [subject.decode() for subject in cast(list[bytes], found)]

    async def count(self) -> OpenCount:
        with redis_or_retry():
            count = await self._redis.zcard(self._key)
            first = await self._redis.zrange(self._key, 0, 0, withscores=True)
        oldest = [datetime.fromtimestamp(score, UTC) for _, score in cast(list[tuple[bytes, float]], first)]
        return OpenCount(count, oldest[0] if oldest else None)
