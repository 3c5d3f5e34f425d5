"""The laws of judging's stores, on the fakes and on a real Redis."""

import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from leyden.kafka.delivered import Retry
from leyden.reward.core.late import LateState
from leyden.reward.judges.ports import AnswerCache, GroupStore, JudgeQueue
from leyden.reward.judges.store import RedisAnswerCache, RedisGroupStore, RedisJudgeQueue
from leyden.reward.late_store import RedisLateStates
from leyden.reward.ports import LateStates
from service.reward.judge_fakes import FakeCache, FakeGroups, FakeLateStates, FakeQueue
from service.reward.reward_fakes import NOW

SOON, LATER = NOW + timedelta(seconds=5), NOW + timedelta(seconds=30)
Stores = tuple[JudgeQueue, GroupStore, AnswerCache, LateStates]


@pytest.fixture(params=["fake", pytest.param("redis", marks=pytest.mark.integration)])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "fake":
        yield FakeQueue(), FakeGroups(), FakeCache(), FakeLateStates()
        return
    redis = Redis.from_url(request.getfixturevalue("redis_server_url"))
    name = f"test-{secrets.token_hex(4)}"
    yield (
        RedisJudgeQueue(redis, f"{name}:judging"),
        RedisGroupStore(redis, f"{name}:ranking"),
        RedisAnswerCache(redis, f"{name}:answers", 60),
        RedisLateStates(redis, f"{name}:late", 60),
    )
    await redis.aclose()


async def test_a_claimed_job_is_nobody_elses_until_the_claim_runs_out(stores: Stores) -> None:
    queue = stores[0]
    await queue.add({"a": NOW, "b": SOON})
    await queue.add({"a": LATER})
    assert await queue.claim(NOW, LATER, 10) == ["a"]
    assert await queue.claim(SOON, LATER, 10) == ["b"]
    assert await queue.claim(SOON, LATER, 10) == []
    assert sorted(await queue.claim(LATER, LATER + timedelta(seconds=1), 10)) == ["a", "b"]


async def test_no_more_are_claimed_than_asked_for(stores: Stores) -> None:
    queue = stores[0]
    await queue.add({"a": NOW, "b": NOW})
    assert len(await queue.claim(NOW, LATER, 1)) == 1
    assert await queue.size() == 2


async def test_a_job_is_done_once_and_only_under_its_claim(stores: Stores) -> None:
    queue = stores[0]
    await queue.add({"a": NOW})
    await queue.claim(NOW, SOON, 10)
    await queue.done({"a": LATER})
    assert await queue.size() == 1
    assert await queue.extend({"a": SOON, "gone": SOON}, LATER) == ["a"]
    await queue.done({"a": SOON})
    assert await queue.size() == 1
    await queue.done({"a": LATER})
    assert await queue.size() == 0


async def test_hurrying_ends_a_claim_and_adds_nothing(stores: Stores) -> None:
    queue = stores[0]
    await queue.add({"a": LATER})
    await queue.hurry(["a", "b"], SOON)
    assert await queue.claim(SOON, LATER, 10) == ["a"]
    await queue.hurry(["a"], NOW)
    await queue.done({"a": LATER})
    assert await queue.extend({"a": LATER}, LATER) == []
    assert await queue.claim(NOW, LATER, 10) == ["a"]
    await queue.hurry(["a"], LATER + timedelta(seconds=9))
    assert await queue.extend({"a": LATER}, LATER) == ["a"]


async def test_nothing_is_asked_of_a_queue_for_nobody(stores: Stores) -> None:
    queue = stores[0]
    await queue.add({})
    await queue.hurry([], NOW)
    await queue.done({})
    assert await queue.extend({}, NOW) == []


async def test_members_are_counted_once_and_the_first_answer_stays(stores: Stores) -> None:
    groups = stores[1]
    assert await groups.join("g", "r1", b"one") == (1, False)
    assert await groups.join("g", "r2", b"two") == (2, False)
    assert await groups.join("g", "r1", b"other") == (2, False)
    assert await groups.load("g") == ([b"one", b"two"], None)
    assert await groups.answer("g", b"yes") == b"yes"
    assert await groups.answer("g", b"no") == b"yes"
    assert await groups.join("g", "r3", b"three") == (3, True)
    assert await groups.load("g") == ([b"one", b"two", b"three"], b"yes")
    assert await groups.load("none") == ([], None)


async def test_an_answer_is_kept_by_its_key(stores: Stores) -> None:
    cache = stores[2]
    assert await cache.get("k") is None
    await cache.put("k", "jä")
    assert await cache.get("k") == "jä"


async def test_an_earlier_revision_never_replaces_a_later_one(stores: Stores) -> None:
    late = stores[3]
    states = [LateState(ended_at=NOW, revision=n, reward_ids=[str(n)], known=[]) for n in range(3)]
    await late.save({"a": states[1], "b": states[0]})
    await late.save({"a": states[0], "b": states[2]})
    await late.save({})
    assert await late.load(["a", "b", "c"]) == {"a": states[1], "b": states[2]}
    assert await late.load([]) == {}


async def test_stores_that_are_away_mean_try_again() -> None:
    redis = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2)
    with pytest.raises(Retry):
        await RedisJudgeQueue(redis, "n").claim(NOW, LATER, 1)
    with pytest.raises(Retry):
        await RedisGroupStore(redis, "n").join("g", "r", b"")
    with pytest.raises(Retry):
        await RedisAnswerCache(redis, "n", 1).get("k")
    with pytest.raises(Retry):
        await RedisLateStates(redis, "n", 1).load(["a"])
    await redis.aclose()
