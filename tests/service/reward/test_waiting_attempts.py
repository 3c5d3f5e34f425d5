"""The laws of `WaitingAttempts`, on the fake and on a real Redis."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from redis.asyncio import Redis

from leyden.clock import SystemClock
from leyden.kafka.delivered import Retry
from leyden.reward.adapters import RedisWaitingAttempts
from leyden.reward.ports import WaitingAttempts
from service.reward.reward_fakes import NOW, FakeWaiting

LATER = NOW + timedelta(seconds=5)


@pytest.fixture(params=["fake", pytest.param("redis", marks=pytest.mark.integration)])
async def waiting(request: pytest.FixtureRequest) -> AsyncIterator[WaitingAttempts]:
    if request.param == "fake":
        yield FakeWaiting(SystemClock())
        return
    redis = Redis.from_url(request.getfixturevalue("redis_server_url"))
    yield RedisWaitingAttempts(redis, f"test-{secrets.token_hex(4)}:waiting")
    await redis.aclose()


async def read(waiting: WaitingAttempts, *subjects: str, until: datetime = NOW) -> None:
    """Add `subjects` and let them be read."""
    await waiting.add(subjects)
    await waiting.have_read(subjects, until)


async def test_a_deadline_once_set_stays(waiting: WaitingAttempts) -> None:
    await read(waiting, "a", until=NOW)
    await read(waiting, "a", "b", until=LATER)
    assert await waiting.due(NOW, 10) == ["a"]
    assert await waiting.due(LATER, 10) == ["a", "b"]
    assert await waiting.due(LATER, 1) == ["a"]


async def test_only_a_reading_that_began_after_an_end_covers_it(waiting: WaitingAttempts) -> None:
    await waiting.add(["a"])
    first = await waiting.begin_reading()
    await waiting.add(["b", "a"])
    assert await waiting.unread(first, 10) == ["a"]
    second = await waiting.begin_reading()
    assert second > first
    assert await waiting.unread(first, 10) == ["a"]
    assert await waiting.unread(second, 10) == ["a", "b"]
    assert await waiting.unread(second, 1) == ["a"]
    assert await waiting.due(LATER, 10) == []


async def test_an_attempt_is_due_while_it_is_unread_and_once_its_deadline_has_passed(waiting: WaitingAttempts) -> None:
    assert not await waiting.any_due(LATER)
    await waiting.add(["a"])
    assert await waiting.any_due(NOW)
    await waiting.have_read(["a"], LATER)
    assert not await waiting.any_due(NOW)
    assert await waiting.any_due(LATER)
    await waiting.remove(["a"])
    assert not await waiting.any_due(LATER)


async def test_what_was_read_is_not_unread_again(waiting: WaitingAttempts) -> None:
    await read(waiting, "a")
    await waiting.add(["a"])
    assert await waiting.unread(await waiting.begin_reading(), 10) == []
    assert await waiting.among(["a"]) == {"a": False}


async def test_reading_adds_nobody(waiting: WaitingAttempts) -> None:
    await waiting.add(["b"])
    await waiting.remove(["b"])
    await waiting.have_read(["a", "b"], NOW)
    assert await waiting.among(["a", "b"]) == {}


async def test_only_who_waits_is_among_them(waiting: WaitingAttempts) -> None:
    await read(waiting, "a", "b")
    await waiting.add(["d", "e"])
    await waiting.remove(["b", "e", "never there"])
    assert await waiting.among(["b", "a", "c", "a", "d", "e"]) == {"a": False, "d": True}
    assert await waiting.among([]) == {}


async def test_putting_off_adds_nobody(waiting: WaitingAttempts) -> None:
    await read(waiting, "a")
    await waiting.add(["c"])
    await waiting.put_off(["a", "b", "c"], LATER)
    assert await waiting.due(NOW, 10) == []
    assert await waiting.due(LATER, 10) == ["a"]
    assert await waiting.among(["a", "b", "c"]) == {"a": False, "c": True}


async def test_behind_passes(waiting: WaitingAttempts) -> None:
    assert not await waiting.behind()
    await waiting.mark_behind(60)
    assert await waiting.behind()
    await waiting.mark_behind(0.001)
    await asyncio.sleep(0.01)
    assert not await waiting.behind()


async def test_nothing_is_asked_of_a_store_for_nobody(waiting: WaitingAttempts) -> None:
    await waiting.add([])
    await waiting.have_read([], NOW)
    await waiting.remove([])
    await waiting.put_off([], NOW)
    assert await waiting.due(NOW, 10) == []


async def test_a_store_that_is_away_means_try_again() -> None:
    redis = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2)
    with pytest.raises(Retry):
        await RedisWaitingAttempts(redis, "n").behind()
    await redis.aclose()
