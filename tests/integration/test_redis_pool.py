"""As many Redis steps at once as the gateway lets in by its limits."""

import asyncio

import pytest
from redis.asyncio import Redis

from leyden.gateway.settings import GatewaySettings
from leyden.state import make_redis, redis_step

pytestmark = pytest.mark.integration


def most_at_once() -> int:
    """The sum of the gateway's limits on what it handles at once."""
    fields = GatewaySettings.model_fields
    return sum(fields[name].default for name in fields if name.startswith("max_concurrent_"))


async def steps(redis: Redis, key: str, number: int) -> None:
    async def step() -> None:
        async with redis_step(20.0):
            await redis.incr(key)

    await asyncio.gather(*(step() for _ in range(number)))


async def test_every_step_that_the_gateway_lets_in_gets_a_connection(redis_server_url: str, topic_prefix: str) -> None:
    redis, key = make_redis(redis_server_url), f"{topic_prefix}counter"
    assert most_at_once() > 1000
    await steps(redis, key, most_at_once())
    assert await redis.get(key) == str(most_at_once()).encode()
    await redis.aclose()
