"""`LateStates` in Redis."""

from collections.abc import Mapping, Sequence
from typing import cast

from redis.asyncio import Redis

from leyden.reward.core.late import LateState
from leyden.state import redis_or_retry

_SAVE = """
for i, key in ipairs(KEYS) do
  local kept = redis.call('HGET', key, 'revision')
  if not kept or tonumber(kept) <= tonumber(ARGV[2 * i]) then
    redis.call('HSET', key, 'revision', ARGV[2 * i], 'state', ARGV[2 * i + 1])
    redis.call('EXPIRE', key, ARGV[1])
  end
end
"""


class RedisLateStates:
    """One hash per attempt (revision, state). It expires `ttl_s` after the last revision."""

    def __init__(self, redis: Redis, namespace: str, ttl_s: int) -> None:
        self._redis = redis
        self._namespace = namespace
        self._ttl_s = ttl_s
        self._save = redis.register_script(_SAVE)

    async def load(self, subjects: Sequence[str]) -> Mapping[str, LateState]:
        with redis_or_retry():
            async with self._redis.pipeline(transaction=False) as pipe:
                for subject in subjects:
                    pipe.hget(self._key(subject), "state")
                found = cast(list[bytes | None], await pipe.execute())
        kept = zip(subjects, found, strict=True)
        return {subject: LateState.model_validate_json(state) for subject, state in kept if state is not None}

    async def save(self, states: Mapping[str, LateState]) -> None:
        if not states:
            return
        args = [item for state in states.values() for item in (state.revision, state.model_dump_json())]
        with redis_or_retry():
            await self._save(keys=[self._key(subject) for subject in states], args=[self._ttl_s, *args])

    def _key(self, subject: str) -> str:
        return f"{self._namespace}:{subject}"
