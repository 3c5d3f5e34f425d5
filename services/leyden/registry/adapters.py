"""The promoted versions in Redis: one hash, raised by a script so that two writers cannot lower it."""

from collections.abc import Awaitable, Collection, Mapping
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from leyden.kafka import Retry

_RAISE = """
local current = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if tonumber(ARGV[2]) > current then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1
"""


class RedisPromotions:
    """`Promotions` in the hash `key`: policy → version."""

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis = redis
        self._key = key

    async def load(self, policies: Collection[str]) -> Mapping[str, int]:
        names = sorted(policies)
        if not names:
            return {}
        try:
            found = await cast(Awaitable[list[bytes | None]], self._redis.hmget(self._key, names))
        except RedisError as error:
            raise Retry(f"Redis did not answer: {error}") from error
        return {name: int(value) for name, value in zip(names, found, strict=True) if value is not None}

    async def raise_to(self, policy: str, version: int) -> None:
        try:
            await cast(Awaitable[object], self._redis.eval(_RAISE, 1, self._key, policy, str(version)))
        except RedisError as error:
            raise Retry(f"Redis did not keep the promotion: {error}") from error
