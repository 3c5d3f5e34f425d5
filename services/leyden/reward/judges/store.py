"""The ports of judging in Redis. Each operation is one round trip."""

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from typing import cast

from redis.asyncio import Redis

from leyden.state import redis_or_retry

_CLAIM = """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, job in ipairs(due) do redis.call('ZADD', KEYS[1], ARGV[2], job) end
return due
"""
_EXTEND = """
local held = {}
for i = 2, #ARGV, 2 do
  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or -1) == tonumber(ARGV[i + 1]) then
    redis.call('ZADD', KEYS[1], ARGV[1], ARGV[i])
    held[#held + 1] = ARGV[i]
  end
end
return held
"""
_DONE = """
for i = 1, #ARGV, 2 do
  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or -1) == tonumber(ARGV[i + 1]) then
    redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
"""
_ANSWER = "answer"
_MEMBER = "member:"


class RedisJudgeQueue:
    """A sorted set by due time (ms). A claim sets a job's time to its own end, and is valid while that is unchanged."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._jobs = f"{namespace}:jobs"
        self._claim = redis.register_script(_CLAIM)
        self._extend = redis.register_script(_EXTEND)
        self._done = redis.register_script(_DONE)

    async def add(self, jobs: Mapping[str, datetime]) -> None:
        if jobs:
            with redis_or_retry():
                await self._redis.zadd(self._jobs, {job: _ms(at) for job, at in jobs.items()}, nx=True)

    async def hurry(self, jobs: Sequence[str], at: datetime) -> None:
        if jobs:
            with redis_or_retry():
                await self._redis.zadd(self._jobs, dict.fromkeys(jobs, _ms(at)), xx=True, lt=True)

    async def claim(self, now: datetime, until: datetime, limit: int) -> list[str]:
        with redis_or_retry():
            found = await self._claim(keys=[self._jobs], args=[_ms(now), _ms(until), limit])
        return [job.decode() for job in cast(list[bytes], found)]

    async def extend(self, claims: Mapping[str, datetime], until: datetime) -> list[str]:
        if not claims:
            return []
        with redis_or_retry():
            held = await self._extend(keys=[self._jobs], args=[_ms(until), *_flat(claims)])
        return [job.decode() for job in cast(list[bytes], held)]

    async def done(self, claims: Mapping[str, datetime]) -> None:
        if claims:
            with redis_or_retry():
                await self._done(keys=[self._jobs], args=_flat(claims))

    async def size(self) -> int:
        with redis_or_retry():
            return int(await self._redis.zcard(self._jobs))


class RedisGroupStore:
    """One hash per group. It expires `ttl_s` after the last change."""

    def __init__(self, redis: Redis, namespace: str, ttl_s: int = 7 * 86_400) -> None:
        self._redis = redis
        self._namespace = namespace
        self._ttl_s = ttl_s

    async def join(self, group: str, rollout_id: str, member: bytes) -> tuple[int, bool]:
        key = self._key(group)
        with redis_or_retry():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hsetnx(key, _MEMBER + rollout_id, cast(str, member))
                pipe.hlen(key)
                pipe.hexists(key, _ANSWER)
                pipe.expire(key, self._ttl_s)
                _, length, answered, _ = await pipe.execute()
        return int(length) - int(answered), bool(answered)

    async def load(self, group: str) -> tuple[list[bytes], bytes | None]:
        with redis_or_retry():
            found = cast(dict[bytes, bytes], await cast(Awaitable[object], self._redis.hgetall(self._key(group))))
        items = {field.decode(): value for field, value in found.items()}
        return [items[field] for field in sorted(items) if field.startswith(_MEMBER)], items.get(_ANSWER)

    async def answer(self, group: str, value: bytes) -> bytes:
        with redis_or_retry():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hsetnx(self._key(group), _ANSWER, cast(str, value))
                pipe.hget(self._key(group), _ANSWER)
                pipe.expire(self._key(group), self._ttl_s)
                _, kept, _ = await pipe.execute()
        return cast(bytes, kept)

    def _key(self, group: str) -> str:
        return f"{self._namespace}:{group}"


class RedisAnswerCache:
    """Responses by request key; they expire after `ttl_s`."""

    def __init__(self, redis: Redis, namespace: str, ttl_s: int) -> None:
        self._redis = redis
        self._namespace = namespace
        self._ttl_s = ttl_s

    async def get(self, key: str) -> str | None:
        with redis_or_retry():
            found = cast(bytes | None, await self._redis.get(f"{self._namespace}:{key}"))
        return None if found is None else found.decode()

    async def put(self, key: str, text: str) -> None:
        with redis_or_retry():
            await self._redis.set(f"{self._namespace}:{key}", text.encode(), ex=self._ttl_s)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _flat(claims: Mapping[str, datetime]) -> list[str | int]:
    return [item for job, until in claims.items() for item in (job, _ms(until))]
