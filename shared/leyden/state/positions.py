"""How far a service's state includes the partitions that it reads, stored with the state in Redis."""

from collections.abc import Mapping, Sequence

from redis.asyncio import Redis

from leyden.kafka.types import TopicPartition
from leyden.state.faults import redis_or_retry

_ADVANCE = """
for i = 1, #ARGV, 3 do
  local at = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or '-1')
  if at >= tonumber(ARGV[i + 1]) and at < tonumber(ARGV[i + 2]) then
    redis.call('ZADD', KEYS[1], ARGV[i + 2], ARGV[i])
  end
end
"""


class RedisPositions:
    """`leyden.kafka.kept.Positions` as a sorted set; the score is the offset, exact up to 2**53."""

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis = redis
        self._key = key
        self._advance = redis.register_script(_ADVANCE)

    async def of(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        if not partitions:
            return {}
        with redis_or_retry():
            scores = await self._redis.zmscore(self._key, [_member(tp) for tp in partitions])
        return {tp: int(score) for tp, score in zip(partitions, scores, strict=True) if score is not None}

    async def begin(self, tp: TopicPartition, offset: int) -> None:
        with redis_or_retry():
            await self._redis.zadd(self._key, {_member(tp): offset})

    async def advance(self, steps: Mapping[TopicPartition, tuple[int, int]]) -> None:
        arguments: list[str | int] = []
        for tp, step in steps.items():
            arguments += (_member(tp), *step)
        if arguments:
            with redis_or_retry():
                await self._advance([self._key], arguments)


def _member(tp: TopicPartition) -> str:
    return f"{tp.topic}/{tp.partition}"
