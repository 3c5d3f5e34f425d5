"""The credit service on a real Redis gives what it gives on the fake, through kills included."""

from collections.abc import AsyncIterator
from secrets import token_hex

import pytest
from redis.asyncio import Redis

from credit_support import Crash, FakePublisher, call, delivered, finished, reward, rollout
from leyden.credit.core.rules import Rules
from leyden.credit.handlers import CreditHandlers
from leyden.events import Event
from leyden.state import MemoryEvidenceStore, RedisEvidenceStore

pytestmark = pytest.mark.integration


@pytest.fixture
async def redis(redis_server_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_server_url)
    yield client
    await client.aclose()


def a_group() -> list[Event]:
    events: list[Event] = []
    for index in range(2):
        mine = call(f"c{index}", [1, 2], [3], rollout_id=rollout(index))
        rewards = [reward(float(index), rollout_id=rollout(index))]
        events += finished([mine], rewards, rollout_id=rollout(index), group_size=2)
    return events


async def test_a_group_survives_a_kill_between_publishing_and_closing(redis: Redis) -> None:
    name = token_hex(4)
    batch = delivered(a_group())
    expected = FakePublisher()
    memory = CreditHandlers(MemoryEvidenceStore(), MemoryEvidenceStore(), expected, Rules())
    await memory.on_batch(batch)

    def process(publisher: FakePublisher) -> CreditHandlers:
        attempts = RedisEvidenceStore(redis, f"{name}:credit:attempts")
        return CreditHandlers(attempts, RedisEvidenceStore(redis, f"{name}:credit:groups"), publisher, Rules())

    with pytest.raises(Crash):
        await process(FakePublisher(crash_at=2)).on_batch(batch)
    next_life, duplicate = FakePublisher(), FakePublisher()
    await process(next_life).on_batch(batch)
    assert next_life.values == expected.values
    await process(duplicate).on_batch(batch)
    assert duplicate.values == []
    assert await redis.keys(f"{name}:credit:*:open:*") == []
