"""The credit service on a real Redis gives what it gives on the fake, through kills included."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from secrets import token_hex

import pytest
from redis.asyncio import Redis

from credit_support import (
    T0,
    Crash,
    CreditLoop,
    CreditPublisher,
    MemoryOpenSubjects,
    call,
    delivered,
    finished,
    late_rewards,
    reward,
    rollout,
)
from leyden.credit.adapters import RedisOpenSubjects, redis_stores
from leyden.credit.grouping import KEPT_LONGER_S
from leyden.credit.ports import OpenCount, OpenSubjects, Stores
from leyden.credit.settings import CreditSettings
from leyden.events import Event
from leyden.kafka.settings import KafkaSettings
from leyden.service import Runtime
from leyden.settings import ServiceSettings
from leyden.state import RedisBacklog

pytestmark = pytest.mark.integration


@pytest.fixture
async def redis(redis_server_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_server_url)
    yield client
    await client.aclose()


def stores(redis: Redis, prefix: str) -> Stores:
    """The stores of one process that lives no longer than the test lets it."""
    settings, nothing = ServiceSettings(topic_prefix=prefix), CreditPublisher()
    runtime = Runtime("credit", settings, KafkaSettings(), nothing, redis)  # type: ignore[arg-type]
    return redis_stores(runtime, CreditSettings())


def a_group() -> list[Event]:
    events: list[Event] = []
    for index in range(2):
        mine = call(f"c{index}", [1, 2], [3], rollout_id=rollout(index))
        rewards = [reward(float(index), rollout_id=rollout(index))]
        events += finished([mine], rewards, rollout_id=rollout(index), group_size=2)
    return events


async def test_a_group_survives_a_kill_between_publishing_and_closing(redis: Redis) -> None:
    name = f"{token_hex(4)}."
    batch = delivered(a_group())
    expected = CreditPublisher()
    await CreditLoop(expected).on_batch(batch)

    def process(publisher: CreditPublisher) -> CreditLoop:
        return CreditLoop(publisher, stores(redis, name))

    dying = CreditPublisher(crash_at=3)
    with pytest.raises(Crash):
        await process(dying).on_batch(batch)
    next_life, duplicate = CreditPublisher(log=dying.log), CreditPublisher()
    await process(next_life).on_batch(batch)
    assert next_life.values == expected.values
    await process(duplicate).on_batch(batch)
    assert duplicate.values == []
    assert await redis.keys(f"{name}credit:*:open:*") == []
    assert await redis.keys(f"{name}credit:open-*") == []


async def test_a_late_reward_is_credited_from_what_redis_kept(redis: Redis) -> None:
    publisher = CreditPublisher()
    first = finished([call("c", [1, 2], [3])], [reward(1.0)], horizon_s=3600)
    name = f"{token_hex(4)}."
    for batch in (first, late_rewards(first, 2.0), late_rewards(first, 2.0)):
        await CreditLoop(publisher, stores(redis, name)).on_batch(delivered(batch))
    assert [(group.revision, group.reward_mean) for group in publisher.groups] == [(0, 1.0), (1, 3.0)]
    for key in await redis.keys(f"{name}credit:*:open:*"):
        assert 3600 < await redis.ttl(key) <= 3600 + KEPT_LONGER_S


@pytest.fixture(params=["memory", "redis"])
async def subjects(request: pytest.FixtureRequest) -> AsyncIterator[OpenSubjects]:
    if request.param == "memory":
        yield MemoryOpenSubjects()
        return
    client = Redis.from_url(request.getfixturevalue("redis_server_url"))
    yield RedisOpenSubjects(client, f"{token_hex(4)}:open")
    await client.aclose()


async def test_open_subjects_keep_the_time_at_which_they_were_first_seen(subjects: OpenSubjects) -> None:
    later = T0 + timedelta(seconds=10)
    assert await subjects.count() == OpenCount(0, None)
    await subjects.seen(["b"], T0)
    await subjects.seen(["a", "b"], later)
    await subjects.seen([], later)
    assert await subjects.count() == OpenCount(2, T0)
    assert await subjects.before(T0 - timedelta(seconds=1), 9) == []
    assert await subjects.before(later, 1) == ["b"]
    assert await subjects.before(later, 9) == ["b", "a"]
    await subjects.gone(["b", "never seen"])
    await subjects.gone([])
    assert await subjects.count() == OpenCount(1, later)


async def test_a_backlog_is_over_when_its_time_is(redis: Redis) -> None:
    backlog = RedisBacklog(redis, f"{token_hex(4)}:behind")
    assert not await backlog.behind()
    await backlog.mark_behind(0.2)
    assert await backlog.behind()
    await asyncio.sleep(0.3)
    assert not await backlog.behind()
