"""Earlier calls on a real Redis: found by the longest conversation first, bounded, and gone after a while."""

from collections.abc import AsyncIterator
from secrets import token_hex

import pytest
from redis.asyncio import Redis

from leyden.gateway.adapters.earlier_calls import RedisEarlierCalls
from leyden.ids import AttemptRef
from leyden.kafka import Retry

pytestmark = pytest.mark.integration
REF, RETRIED = AttemptRef("1e7de" + "0" * 22 + "1", 0), AttemptRef("1e7de" + "0" * 22 + "1", 1)


@pytest.fixture
async def redis(redis_server_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server_url) as client:
        yield client


@pytest.fixture
def calls(redis: Redis) -> RedisEarlierCalls:
    return RedisEarlierCalls(redis, f"{token_hex(4)}:said", ttl_s=60, most=3)


async def test_the_first_digest_that_is_known_counts(calls: RedisEarlierCalls) -> None:
    assert await calls.find(REF, [b"a"]) == (None, False)
    await calls.keep(REF, {b"a": b"1", b"b": b"2"})
    assert await calls.find(REF, [b"x", b"b", b"a"]) == (b"2", True)
    assert await calls.find(REF, [b"x"]) == (None, True)


async def test_attempts_are_apart(calls: RedisEarlierCalls) -> None:
    await calls.keep(REF, {b"a": b"1"})
    assert await calls.find(RETRIED, [b"a"]) == (None, False)


async def test_an_attempt_keeps_so_many_answers_and_for_so_long(calls: RedisEarlierCalls, redis: Redis) -> None:
    await calls.keep(REF, {bytes([number]): b"x" for number in range(10)})
    [key] = [key async for key in redis.scan_iter(f"*:said:{REF.trace_id}") if await redis.hlen(key) == 3]
    assert 0 < await redis.ttl(key) <= 60


async def test_a_redis_that_is_away_is_a_passing_fault() -> None:
    async with Redis(port=1) as nobody:
        with pytest.raises(Retry):
            await RedisEarlierCalls(nobody, "n", ttl_s=60, most=3).find(REF, [b"a"])
