"""What a fault of Redis means: try again. To a handler that is the same batch, to a request a 503."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from redis.exceptions import RedisError

from leyden.kafka.delivered import Retry


@contextmanager
def redis_or_retry() -> Iterator[None]:
    """Raise `Retry` for whatever Redis raises inside."""
    try:
        yield
    except RedisError as error:
        raise Retry(f"Redis did not answer: {error}") from error


@asynccontextmanager
async def redis_step(timeout_s: float) -> AsyncIterator[None]:
    """The same where somebody waits: it is a fault too when Redis takes longer than `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise Retry(f"Redis did not do its part: {error!r}") from error
