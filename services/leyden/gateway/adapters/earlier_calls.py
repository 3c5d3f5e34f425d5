"""`EarlierCalls` on Redis: one hash per attempt, digest of a conversation → its call."""

from collections.abc import Mapping, Sequence
from typing import cast

from redis.asyncio import Redis

from leyden.ids import AttemptRef
from leyden.state import redis_step

_KEEP = """
-- KEYS: the attempt's hash  ARGV: ttl_s, most, then digests and calls
for i = 3, #ARGV, 2 do
  if redis.call('HLEN', KEYS[1]) < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class RedisEarlierCalls:
    """Keeps an attempt's first `most` answers, for `ttl_s` after the last one."""

    def __init__(self, redis: Redis, namespace: str, *, ttl_s: int, most: int, timeout_s: float = 5.0) -> None:
        self._redis = redis
        self._namespace = namespace
        self._ttl_s = ttl_s
        self._most = most
        self._timeout_s = timeout_s
        self._keep = redis.register_script(_KEEP)

    async def find(self, ref: AttemptRef, digests: Sequence[bytes]) -> tuple[bytes | None, bool]:
        key = self._key(ref)
        async with redis_step(self._timeout_s), self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(key, list(digests))
            pipe.exists(key)
            found, known = await pipe.execute()
        return next((value for value in cast(list[bytes | None], found) if value is not None), None), bool(known)

    async def keep(self, ref: AttemptRef, calls: Mapping[bytes, bytes]) -> None:
        flat = [item for pair in calls.items() for item in pair]
        async with redis_step(self._timeout_s):
            await self._keep([self._key(ref)], [self._ttl_s, self._most, *flat])

    def _key(self, ref: AttemptRef) -> str:
        return f"{self._namespace}:{ref.trace_id}"
