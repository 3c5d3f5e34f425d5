"""Restores the store's state from the log: for a new deployment, or after Redis lost its data.

Until it is done nothing is claimed, started, cancelled or ended. It may run in several replicas at once, be interrupted
at any point, and run again: state in the store that is newer than the log is kept.

No attempt gets a second end. The gateway first waits for ends that were being written when the state was lost; a
running attempt is restored together with its end, so that no other end can come between.
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
from leyden.gateway.core.rollouts import RolloutState, in_project
from leyden.gateway.handlers.rollouts import Rollouts
from leyden.gateway.ports import History, RolloutStore
from leyden.ids import AttemptRef
from leyden.kafka import Retry

log = logging.getLogger(__name__)
BATCH = 500
FINISHED_AT_ONCE = 32


@dataclass(frozen=True)
class RestoringTimes:
    """Times in seconds."""

    interval_s: float
    """Interval of looking at the store."""
    grace_s: float
    """How long records that were being written when the state was lost may take to reach the log."""
    ttl_s: float
    """How long the store keeps tasks and ended rollouts."""


@dataclass
class _Batch:
    tasks: list[tuple[str, bytes]] = field(default_factory=list)
    """(task id, event) that the store still keeps."""
    rollouts: list[Restored] = field(default_factory=list)


class Restorer:
    """Checks whether the store has its state, and restores it from the log if not."""

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
        """Check repeatedly, as Redis may lose its data while the gateway runs."""
        while True:
            try:
                await self.restore_if_lost()
            except Retry as error:
                log.warning("the queue's state will be restored later: %s", error)
            await asyncio.sleep(self._times.interval_s)

    def ready(self) -> str | None:
        """Why a starting gateway is not ready. A running one stays ready, as model calls still work."""
        return None if self._was_whole else "still reading the queue's state from the log"

    async def restore_if_lost(self) -> bool:
        """Restore the state if it is missing; returns whether it was. Running attempts end as `infrastructure`."""
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
        """Wait until starts and ends that other replicas were writing when the state was lost are in the log.

        Meanwhile the store starts and ends nothing. An empty log has no writers to wait for.
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
                    batch.tasks.append((in_project(event.project, event.task.task_id), encode(event)))
            case QueuePaused() | QueueResumed():
                await self._store.pause(event.project, isinstance(event, QueuePaused), event.event_time)
            case _:
                pass
