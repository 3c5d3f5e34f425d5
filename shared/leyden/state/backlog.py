"""Whether some replica is still reading old records, so that what seems missing may only be unread."""

from redis.asyncio import Redis

from leyden.state.faults import redis_or_retry


class RedisBacklog:
    """One key that expires."""

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis = redis
        self._key = key

    async def mark_behind(self, for_s: float) -> None:
        """Say so to all replicas, for so long. Raises `Retry`."""
        with redis_or_retry():
            await self._redis.set(self._key, b"1", px=max(1, round(for_s * 1000)))

    async def behind(self) -> bool:
        """Whether any replica said so within the time it gave. Raises `Retry`."""
        with redis_or_retry():
            return bool(await self._redis.exists(self._key))
