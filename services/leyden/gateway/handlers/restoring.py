"""The store's state from the log, when the store has none: a new deployment, or a Redis that lost its data.

Until it is done nothing is claimed, begun, called off or ended. It may run in several replicas at once, be cut off at
any point, and run again: what the store knows to be further than the log is left alone.

No attempt gets a second end in the log by it. An end that was on its way there when the store lost its state is waited
for before the log is read; an attempt that ran is put back together with its end, so that none can come between.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta

from leyden.clock import Clock
from leyden.events import Event, QueuePaused, QueueResumed, TaskEnqueued
from leyden.events.codec import ROLLOUTS, TASKS, encode
from leyden.gateway.core.restoring import Restored, RolloutLog
from leyden.gateway.core.rollouts import RolloutState
from leyden.gateway.handlers.rollouts import Rollouts
from leyden.gateway.ports import History, RolloutStore
from leyden.ids import AttemptRef
from leyden.kafka import Retry

log = logging.getLogger(__name__)
BATCH = 500
FINISHED_AT_ONCE = 32


@dataclass(frozen=True)
class RestoringTimes:
    """Seconds."""

    interval_s: float
    """Between two looks at the store."""
    grace_s: float
    """How long what was on its way to the log when the state was lost may take to be in it."""
    ttl_s: float
    """How long the store remembers tasks and ended rollouts."""


@dataclass
class _Batch:
    tasks: list[tuple[str, bytes]] = field(default_factory=list)
    """(task id, event), young enough to be remembered."""
    rollouts: list[Restored] = field(default_factory=list)


class Restorer:
    """Watches whether the store has its state, and gives it back from the log."""

    def __init__(
        self, store: RolloutStore, history: History, rollouts: Rollouts, clock: Clock, times: RestoringTimes
    ) -> None:
        self._store = store
        self._history = history
        self._rollouts = rollouts
        self._clock = clock
        self._times = times
        self._kept_for = timedelta(seconds=times.ttl_s)
        self._was_whole = False
        self._lost_at: float | None = None

    async def watch_forever(self) -> None:
        """Look again and again: Redis may lose its data while the gateway runs."""
        while True:
            try:
                await self.restore_if_lost()
            except Retry as error:
                log.warning("the queue's state will be restored later: %s", error)
            await asyncio.sleep(self._times.interval_s)

    def ready(self) -> str | None:
        """Why a gateway that starts is not ready yet; one that runs stays ready, as models can be called anyway."""
        return None if self._was_whole else "still reading the queue's state from the log"

    async def restore_if_lost(self) -> bool:
        """Whether there was anything to do. Attempts that ran are over, as failures of infrastructure."""
        if await self._store.has_state():
            self._was_whole, self._lost_at = True, None
            return False
        await self._let_writers_finish()
        past = RolloutLog()
        async for event in self._history.events(ROLLOUTS):
            past.note(event)
        ran = 0
        async for batch in self._batches(past):
            if batch.tasks:
                await self._store.accept_tasks(batch.tasks)
            put_back = await self._store.restore(batch.rollouts)
            pairs = zip(batch.rollouts, put_back, strict=True)
            over = [one.ref for one, is_back in pairs if is_back and one.state is RolloutState.RUNNING]
            await self._finish(over)
            ran += len(over)
        await self._store.state_restored(past.ended)
        self._was_whole = True
        log.info("the queue's state was read from the log: %s rollouts ended, %s attempts given up", past.ended, ran)
        return True

    async def _let_writers_finish(self) -> None:
        """Starts and ends that other replicas were writing when the state was lost are in the log afterwards.

        Since then the store lets nothing begin and nothing end. A log with nothing in it has no writers to wait for.
        """
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        left = self._lost_at + self._times.grace_s - time.monotonic()
        if left > 0 and (await self._has_events(ROLLOUTS) or await self._has_events(TASKS)):
            await asyncio.sleep(left)

    async def _has_events(self, topic: str) -> bool:
        async with aclosing(self._history.events(topic)) as events:
            async for _ in events:
                return True
        return False

    async def _finish(self, over: Sequence[AttemptRef]) -> None:
        for at in range(0, len(over), FINISHED_AT_ONCE):
            await asyncio.gather(*(self._rollouts.finish(ref) for ref in over[at : at + FINISHED_AT_ONCE]))

    async def _batches(self, past: RolloutLog) -> AsyncIterator[_Batch]:
        batch = _Batch()
        async for event in self._history.events(TASKS):
            await self._take(event, past, batch)
            if len(batch.rollouts) >= BATCH or len(batch.tasks) >= BATCH:
                yield batch
                batch = _Batch()
        now = self._clock.now()
        batch.rollouts += [one.given_up(now) for one in past.of_no_task()]
        yield batch

    async def _take(self, event: Event, past: RolloutLog, batch: _Batch) -> None:
        match event:
            case TaskEnqueued():
                now = self._clock.now()
                is_fresh = now - event.event_time < self._kept_for
                found = (one.given_up(now) for one in past.of_task(event))
                batch.rollouts += [one for one in found if is_fresh or one.state is not RolloutState.ENDED]
                if is_fresh:
                    batch.tasks.append((event.task.task_id, encode(event)))
            case QueuePaused() | QueueResumed():
                await self._store.pause(event.project, isinstance(event, QueuePaused), event.event_time)
            case _:
                pass
