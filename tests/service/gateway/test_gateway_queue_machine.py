"""Whatever happens in whatever order, every rollout ends for good once, and nothing begins after that.

Tasks come in, runners claim, fail and vanish, work is called off, the queue is paused, Kafka and Redis fail at any
step, Redis loses everything: then the log is judged.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.clock import ManualClock
from leyden.events import Event, Failure, FailureClass, RetryPolicy, RolloutEnded, RolloutStarted, TaskEnqueued
from leyden.events.codec import EVENTS_BY_TOPIC, encode
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.rollouts import EndReport, Running, TaskRequest
from leyden.gateway.handlers.restoring import Restorer, RestoringTimes
from leyden.gateway.handlers.rollouts import LifeSettings, Rollouts
from leyden.gateway.handlers.tasks import TasksHandler
from leyden.kafka import Retry
from service.gateway.gateway_fakes import START, FakeLog
from service.gateway.gateway_store_fake import MemoryStore

TASKS = 3
SAMPLES = 2
STEPS = ["claim", "unclaim", "end", "find_end", "settle", "withdraw", "enqueue", "accept_tasks", "restore", "expired"]
DOINGS = ["accept", "consume", "claim", "good", "bad", "vanish", "cancel", "pause", "resume", "later", "sweep", "lose"]
OFTEN = ["claim", "good", "bad", "fail", "fail", "fail"]
DAY_S = 86_400.0
BAD = Failure(failure_class=FailureClass.AGENT_EXCEPTION, message="boom")


class World:
    """One gateway on fakes, and what runners hold."""

    def __init__(self) -> None:
        self.log, self.store, self.clock = FakeLog(), MemoryStore(), ManualClock(START)
        self.rollouts = Rollouts(self.store, self.log, self.clock, LifeSettings())
        self.tasks = TasksHandler(self.store, self.log, self.clock, self.rollouts, str)
        self.restorer = Restorer(self.store, self, self.rollouts, self.clock, RestoringTimes(1.0, 0.0, DAY_S))
        self.held: list[Running] = []

    async def events(self, topic: str) -> AsyncGenerator[Event, None]:
        for outgoing in list(self.log.published):
            if isinstance(outgoing.event, EVENTS_BY_TOPIC[topic]):
                yield outgoing.event

    async def do(self, what: str, number: int) -> None:
        """One step; a passing fault or a refusal is the end of it."""
        with suppress(Refusal, Retry):
            await getattr(self, what)(number)

    async def accept(self, number: int) -> None:
        retry = RetryPolicy(backoff_s=number % 3)
        await self.tasks.accept(
            [TaskRequest(task_id=f"t{number % TASKS}", samples=SAMPLES, max_attempts=3, retry=retry)]
        )

    async def consume(self, _: int) -> None:
        await self.tasks.on_tasks(self.log.delivered("tasks.v1"))

    async def claim(self, number: int) -> None:
        self.held += await self.rollouts.claim("r", 1 + number % 3)

    async def good(self, number: int) -> None:
        await self._end(number, EndReport(status="succeeded"))

    async def bad(self, number: int) -> None:
        await self._end(number, EndReport(status="failed", failure=BAD))

    async def _end(self, number: int, report: EndReport) -> None:
        if self.held:
            running = self.held[number % len(self.held)]
            await self.rollouts.end(running.ref, report)
            self.held.remove(running)

    async def vanish(self, number: int) -> None:
        if self.held:
            self.held.pop(number % len(self.held))

    async def cancel(self, number: int) -> None:
        await self.tasks.cancel(f"t{number % TASKS}", "", None)

    async def pause(self, _: int) -> None:
        await self.tasks.pause(None, True, "")

    async def resume(self, _: int) -> None:
        await self.tasks.pause(None, False, "")

    async def later(self, number: int) -> None:
        self.clock.set(self.clock.now() + timedelta(seconds=(1, 20, 70)[number % 3]))

    async def sweep(self, _: int) -> None:
        await self.rollouts.sweep()

    async def lose(self, _: int) -> None:
        faults = self.store.fail_at
        vars(self.store).update(vars(MemoryStore(whole=False)))
        self.store.fail_at = faults
        await self.restorer.restore_if_lost()

    def fail(self, number: int) -> None:
        """The next time one of these is done it goes wrong."""
        if number % 2 == 0:
            self.log.failures, self.log.fail_after_write = 1, number % 4 == 0
        else:
            self.store.fail_at[STEPS[number % len(STEPS)]] = 1

    async def settle(self) -> None:
        """No more faults: whatever is left runs to its end."""
        self.log.failures = 0
        self.store.fail_at.clear()
        self.held.clear()
        always: list[Callable[[int], Awaitable[None]]] = [self.resume, self.consume, self.sweep, self._work]
        for _ in range(8):
            self.clock.set(self.clock.now() + timedelta(seconds=700))
            await self.restorer.restore_if_lost()
            for step in always:
                await step(0)

    async def _work(self, _: int) -> None:
        for running in await self.rollouts.claim("r", 256):
            await self.rollouts.end(running.ref, EndReport(status="succeeded"))


def judge(world: World) -> None:
    accepted = {rollout_id for event in world.log.of(TaskEnqueued) for rollout_id in event.rollout_ids}
    ends: dict[str, dict[int, RolloutEnded]] = defaultdict(dict)
    bytes_of: dict[str, set[bytes]] = defaultdict(set)
    over: set[str] = set()
    for outgoing in world.log.published:
        event = outgoing.event
        assert not isinstance(event, bytes)
        if not isinstance(event, RolloutStarted):  # one that was written, not acknowledged and given back begins later
            bytes_of[event.event_id].add(encode(event))
        if isinstance(event, RolloutStarted) and event.attempt not in ends[event.rollout_id]:
            assert event.rollout_id not in over, "an attempt began after the rollout's end"
            assert event.attempt == len(ends[event.rollout_id]), "an attempt began before the one before it ended"
        if isinstance(event, RolloutEnded):
            ends[event.rollout_id][event.attempt] = event
            over |= {event.rollout_id} if event.final else set()
    assert all(len(found) == 1 for found in bytes_of.values()), "an event that came twice differs"
    assert accepted <= over
    for found in ends.values():
        finals = Counter(end.final for end in found.values())
        assert finals[True] == (1 if finals else 0)
        assert max(found, default=0) + 1 == len(found)
    assert (len(world.store.leases), len(world.store.queue), len(world.store.delayed)) == (0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*DOINGS, *OFTEN]), st.integers(0, 29)), min_size=10, max_size=40))
def test_every_rollout_ends_for_good_once(doings: list[tuple[str, int]]) -> None:
    async def live() -> World:
        world = World()
        await world.do("accept", 0)
        await world.do("consume", 0)
        for what, number in doings:
            if what == "fail":
                world.fail(number)
            else:
                await world.do(what, number)
        await world.settle()
        return world

    judge(asyncio.run(live()))
