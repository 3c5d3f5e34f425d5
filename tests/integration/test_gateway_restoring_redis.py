"""Redis loses its data while replicas write: the log gets one end of each attempt, and no attempt has two runners."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from secrets import token_hex

import pytest
from redis.asyncio import Redis

from leyden.clock import ManualClock
from leyden.events import Event, RolloutEnded
from leyden.events.codec import EVENTS_BY_TOPIC, TASKS
from leyden.gateway.adapters.store import RedisRolloutStore
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.rollouts import EndReport, RolloutState, Running, TaskRequest
from leyden.gateway.handlers.restoring import Restorer, RestoringTimes
from leyden.gateway.handlers.rollouts import LifeSettings, Rollouts
from leyden.gateway.handlers.tasks import TasksHandler
from leyden.ids import AttemptRef
from leyden.kafka import Delivered, Retry
from service.gateway.gateway_fakes import START, FakeLog

pytestmark = pytest.mark.integration
GOOD = EndReport(status="succeeded")
GRACE_S = 0.5


class Replica:
    """A gateway's queue on a real Redis; its log can hold back what it writes."""

    def __init__(self, redis: Redis, namespace: str, log: FakeLog, grace_s: float = GRACE_S) -> None:
        self.redis, self.namespace, self.log = redis, namespace, log
        self.store = RedisRolloutStore(redis, namespace)
        self.rollouts = Rollouts(self.store, log, ManualClock(START), LifeSettings())
        self.tasks = TasksHandler(self.store, log, ManualClock(START), self.rollouts, str)
        self.restorer = Restorer(
            self.store, self, self.rollouts, ManualClock(START), RestoringTimes(1.0, grace_s, 86_400.0)
        )
        self.reading_tasks = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def events(self, topic: str) -> AsyncGenerator[Event, None]:
        if topic == TASKS:
            self.reading_tasks.set()
            await self.go_on.wait()
        for outgoing in list(self.log.published):
            if isinstance(outgoing.event, EVENTS_BY_TOPIC[topic]):
                yield outgoing.event

    async def queue(self, *names: str) -> None:
        await self.tasks.accept([TaskRequest(task_id=name, max_attempts=3) for name in names])
        sent = [Delivered(o.event, o.topic, o.key, 0, i, f"t/0/{i}") for i, o in enumerate(self.log.published)]
        await self.tasks.on_tasks([one for one in sent if one.topic == TASKS])  # type: ignore[misc]

    async def claim(self) -> Running:
        (running,) = await self.rollouts.claim("runner", 1)
        return running

    async def lose(self) -> None:
        keys = [key async for key in self.redis.scan_iter(f"{self.namespace}:*")]
        await self.redis.delete(*keys)

    def ends(self) -> list[tuple[int, str]]:
        return [(event.attempt, event.status) for event in self.log.of(RolloutEnded)]


@pytest.fixture
async def replicas(redis_server_url: str) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas, with a log that both write and one that only the first one's writing waits for."""
    async with Redis.from_url(redis_server_url) as redis:
        namespace, shared, held = f"{token_hex(4)}:rollouts", FakeLog(), FakeLog()
        held.published = shared.published
        first, second = Replica(redis, namespace, held), Replica(redis, namespace, shared)
        await first.store.state_restored(0)
        yield first, second


async def test_an_end_on_its_way_to_the_log_is_waited_for(replicas: tuple[Replica, Replica]) -> None:
    first, second = replicas
    await first.queue("t")
    running = await first.claim()
    first.log.acknowledging.clear()
    ending = asyncio.ensure_future(first.rollouts.end(running.ref, GOOD))
    while not await first.store.find_end(running.ref):
        await asyncio.sleep(0.01)
    await first.lose()
    restoring = asyncio.ensure_future(second.restorer.restore_if_lost())
    await asyncio.sleep(GRACE_S / 2)
    assert not restoring.done()
    first.log.acknowledging.set()
    assert (await ending).status == "succeeded"
    assert await restoring
    assert second.ends() == [(0, "succeeded")]
    view = await second.store.find(running.ref.rollout_id)
    assert view is not None
    assert (view.state, view.status) == (RolloutState.ENDED, "succeeded")


async def test_a_start_on_its_way_to_the_log_is_waited_for_and_its_attempt_is_nobody_elses(
    replicas: tuple[Replica, Replica],
) -> None:
    first, second = replicas
    await first.queue("t")
    first.log.acknowledging.clear()
    claiming = asyncio.ensure_future(first.claim())
    while not (await first.store.counts()).running:
        await asyncio.sleep(0.01)
    await first.lose()
    restoring = asyncio.ensure_future(second.restorer.restore_if_lost())
    await asyncio.sleep(GRACE_S / 2)
    first.log.acknowledging.set()
    running = await claiming
    assert await restoring
    assert second.ends() == [(0, "failed")], "its calls from before cannot be counted"
    with pytest.raises(Refusal) as refused:
        await first.rollouts.end(running.ref, GOOD)
    assert refused.value.status == 409
    later = await second.store.claim(9, "r", START.replace(year=2027), START.replace(year=2028))
    assert [one.ref for one in later] == [AttemptRef(running.ref.rollout_id, 1)]


async def test_no_other_end_comes_between_while_the_state_is_put_back(replicas: tuple[Replica, Replica]) -> None:
    first, second = replicas
    await first.queue("t")
    running = await first.claim()
    await first.lose()
    second = Replica(first.redis, first.namespace, second.log, grace_s=0.0)
    second.go_on.clear()
    restoring = asyncio.ensure_future(second.restorer.restore_if_lost())
    await second.reading_tasks.wait()
    for request in (
        first.rollouts.end(running.ref, GOOD),
        first.rollouts.heartbeat(running.ref),
        first.rollouts.begin(running.spec, "agent"),
        first.tasks.cancel("t", "", None),
        first.rollouts.cancel(running.ref.rollout_id, ""),
    ):
        with pytest.raises(Retry):  # sent again later, and not a 404 or a 409
            await request
    assert await first.rollouts.claim("runner", 1) == []
    second.log.acknowledging.clear()
    second.go_on.set()
    while not await first.store.find_end(running.ref):
        await asyncio.sleep(0.01)
    assert second.ends() == [], "put back with its end, which is not in the log yet"
    with pytest.raises(Refusal) as refused:
        await first.rollouts.end(running.ref, GOOD)
    assert (refused.value.status, refused.value.code) == (409, "ended_differently")
    second.log.acknowledging.set()
    assert await restoring
    assert second.ends() == [(0, "failed")]


async def test_replicas_that_restore_at_once_write_each_end_once(replicas: tuple[Replica, Replica]) -> None:
    first, second = replicas
    await first.queue(*(f"t{n}" for n in range(60)))
    ran = [await first.claim() for _ in range(40)]
    await first.lose()
    done = await asyncio.gather(*(one.restorer.restore_if_lost() for one in replicas))
    assert any(done)
    ends = [(event.rollout_id, event.attempt) for event in second.log.of(RolloutEnded)]
    assert sorted(ends) == sorted((one.ref.rollout_id, 0) for one in ran)
    counts = await second.store.counts()
    assert (counts.queued, counts.running, counts.ended) == (60, 0, 0)
    assert counts.delayed == 40


async def test_a_log_with_nothing_in_it_is_not_waited_for(replicas: tuple[Replica, Replica]) -> None:
    first, second = replicas
    await first.lose()
    async with asyncio.timeout(GRACE_S / 2):
        assert await second.restorer.restore_if_lost()
