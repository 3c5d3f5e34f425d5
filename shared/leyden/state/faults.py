"""Converts Redis errors to `Retry`: a handler retries the batch, a request gets 503."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from redis.exceptions import RedisError

from leyden.kafka.delivered import Retry


@contextmanager
def redis_or_retry() -> Iterator[None]:
    """Raise `Retry` for any Redis error in the block."""
    try:
        yield
    except RedisError as error:
        raise Retry(f"Redis request failed: {error}") from error


@asynccontextmanager
async def redis_step(timeout_s: float) -> AsyncIterator[None]:
    """Like `redis_or_retry`, and also raise `Retry` if the block takes longer than `timeout_s`. For requests."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise Retry(f"Redis request failed: {error!r}") from error
