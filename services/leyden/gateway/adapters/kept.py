"""`KeptResponses` on Redis: two hashes per owner. When one is full it becomes the older one, whose content goes.

So an owner takes a bounded space without counting references: a new response writes all of its conversation into the
newer hash, and what was not used for a while is in the older one.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from redis.asyncio import Redis

from leyden.state import redis_step

OVERHEAD = 64
"""Bytes that a field takes beside its name and value."""
_KEEP = """
-- KEYS: newer, older  ARGV: ttl_s, bytes of one hash, then fields, values
local size = 0
for i = 3, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    size = size + #ARGV[i + 1] - redis.call('HSTRLEN', KEYS[1], ARGV[i])
  else
    size = size + #ARGV[i] + #ARGV[i + 1] + 64
  end
end
if tonumber(redis.call('HGET', KEYS[1], 'size') or '0') + size > tonumber(ARGV[2]) then
  if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end
  size = 0
  for i = 3, #ARGV, 2 do size = size + #ARGV[i] + #ARGV[i + 1] + 64 end
end
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HINCRBY', KEYS[1], 'size', size)
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
"""


class RedisKeptResponses:
    """Keeps at most `max_bytes` of an owner, for `ttl_s` after its last response."""

    def __init__(self, redis: Redis, namespace: str, *, ttl_s: int, max_bytes: int, timeout_s: float = 5.0) -> None:
        self._redis = redis
        self._namespace = namespace
        self._ttl_s = ttl_s
        self._half = max_bytes // 2
        self._timeout_s = timeout_s
        self._keep = redis.register_script(_KEEP)

    async def find(self, owner: str, fields: Sequence[str]) -> list[bytes | None]:
        if not fields:
            return []
        async with redis_step(self._timeout_s), self._redis.pipeline(transaction=True) as pipe:
            for key in self._keys(owner):
                pipe.hmget(key, list(fields))
            newer, older = cast(list[list[bytes | None]], await pipe.execute())
        return [new if new is not None else old for new, old in zip(newer, older, strict=True)]

    async def keep(self, owner: str, fields: Mapping[str, bytes]) -> bool:
        if sum(len(name.encode()) + len(value) + OVERHEAD for name, value in fields.items()) > self._half:
            return False
        flat = [part for pair in fields.items() for part in pair]
        async with redis_step(self._timeout_s):
            await self._keep(self._keys(owner), [self._ttl_s, self._half, *flat])
        return True

    async def drop(self, owner: str, field: str) -> bool:
        async with redis_step(self._timeout_s), self._redis.pipeline(transaction=True) as pipe:
            for key in self._keys(owner):
                pipe.hdel(key, field)
            return any(await pipe.execute())

    def _keys(self, owner: str) -> list[str]:
        return [f"{self._namespace}:{owner}:newer", f"{self._namespace}:{owner}:older"]
