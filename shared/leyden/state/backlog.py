"""A flag shared by replicas: one of them is still reading old records, so missing records may only be unread."""

from redis.asyncio import Redis

from leyden.state.faults import redis_or_retry


class RedisBacklog:
    """The flag as a Redis key that expires."""

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis = redis
        self._key = key

    async def mark_behind(self, for_s: float) -> None:
        """Set the flag for `for_s` seconds. Raises `Retry`."""
        with redis_or_retry():
            await self._redis.set(self._key, b"1", px=max(1, round(for_s * 1000)))

    async def behind(self) -> bool:
        """Whether any replica has set the flag and it has not expired. Raises `Retry`."""
        with redis_or_retry():
            return bool(await self._redis.exists(self._key))
