"""What a fault of Redis means to a handler: try the same batch again."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from leyden.kafka.delivered import Retry


@contextmanager
def redis_or_retry() -> Iterator[None]:
    """Raise `Retry` for whatever Redis raises inside."""
    try:
        yield
    except RedisError as error:
        raise Retry(f"Redis did not answer: {error}") from error
