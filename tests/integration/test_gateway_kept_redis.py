"""Kept responses: the same laws hold in memory and on a real Redis."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from leyden.gateway.adapters.kept import RedisKeptResponses
from service.gateway.gateway_kept_fake import MemoryKeptResponses

pytestmark = pytest.mark.integration
MAX_BYTES = 2_000
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("keep"),
            st.sampled_from("ab"),
            st.dictionaries(st.sampled_from("uvwxyz"), st.binary(max_size=400), min_size=1, max_size=4),
        ),
        st.tuples(st.just("drop"), st.sampled_from("ab"), st.sampled_from("uvwxyz")),
    ),
    max_size=12,
)


@pytest.fixture
async def redis(redis_server_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_server_url)
    yield client
    await client.aclose()


@given(steps=STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_redis_keeps_what_memory_keeps(
    redis: Redis, topic_prefix: str, steps: list[tuple[str, str, object]]
) -> None:
    async for key in redis.scan_iter(f"{topic_prefix}*"):
        await redis.delete(key)
    real = RedisKeptResponses(redis, f"{topic_prefix}kept", ttl_s=60, max_bytes=MAX_BYTES)
    fake = MemoryKeptResponses(MAX_BYTES)
    for what, owner, value in steps:
        if what == "keep":
            assert isinstance(value, dict)
            assert await real.keep(owner, value) == await fake.keep(owner, value)
        else:
            assert await real.drop(owner, str(value)) == await fake.drop(owner, str(value))
        assert await real.find(owner, "uvwxyz") == await fake.find(owner, "uvwxyz")


async def test_what_is_kept_expires(redis: Redis, topic_prefix: str) -> None:
    real = RedisKeptResponses(redis, f"{topic_prefix}kept", ttl_s=60, max_bytes=MAX_BYTES)
    for _ in range(3):
        await real.keep("a", {"r:1": b"x" * 700})
        await real.keep("a", {"r:2": b"x" * 700})
    for half in ("newer", "older"):
        assert 0 < await redis.ttl(f"{topic_prefix}kept:a:{half}") <= 60
