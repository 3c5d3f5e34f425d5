"""Stores the promoted versions in one Redis hash. A script updates it, so that concurrent writers cannot lower it."""

from collections.abc import Awaitable, Collection, Mapping
from typing import cast

from redis.asyncio import Redis

from leyden.state import redis_or_retry

_RAISE = """
local current = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if tonumber(ARGV[2]) > current then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1
"""


class RedisPromotions:
    """`Promotions` in the Redis hash `key`: policy → version."""

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis = redis
        self._key = key

    async def load(self, policies: Collection[str]) -> Mapping[str, int]:
        names = sorted(policies)
        if not names:
            return {}
        with redis_or_retry():
            found = await cast(Awaitable[list[bytes | None]], self._redis.hmget(self._key, names))
        return {name: int(value) for name, value in zip(names, found, strict=True) if value is not None}

    async def raise_to(self, policy: str, version: int) -> None:
        with redis_or_retry():
            await cast(Awaitable[object], self._redis.eval(_RAISE, 1, self._key, policy, str(version)))
