"""The store's state from the log, when the store has none: a new deployment, or a Redis that lost its data.

Until it is done nothing is claimed. It may run in several replicas at once, be cut off at any point, and run again:
what the store knows to be further than the log is left alone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from leyden.clock import Clock
from leyden.events import QueuePaused, QueueResumed, TaskEnqueued
from leyden.events.codec import ROLLOUTS, TASKS, encode
from leyden.gateway.core.restoring import Past, Restored, state_lost
from leyden.gateway.core.rollouts import RolloutState
from leyden.gateway.handlers.rollouts import Rollouts
from leyden.gateway.ports import History, RolloutStore
from leyden.kafka import Retry

log = logging.getLogger(__name__)
BATCH = 500


class Restorer:
    """Watches whether the store has its state, and gives it back from the log."""

    def __init__(
        self, store: RolloutStore, history: History, rollouts: Rollouts, clock: Clock, interval_s: float, ttl_s: float
    ) -> None:
        self._store = store
        self._history = history
        self._rollouts = rollouts
        self._clock = clock
        self._interval_s = interval_s
        self._kept_for = timedelta(seconds=ttl_s)
        self._was_whole = False

    async def watch_forever(self) -> None:
        """Look again and again: Redis may lose its data while the gateway runs."""
        while True:
            try:
                await self.restore_if_lost()
            except Retry as error:
                log.warning("the queue's state will be restored later: %s", error)
            await asyncio.sleep(self._interval_s)

    def ready(self) -> str | None:
        """Why a gateway that starts is not ready yet; one that runs stays ready, as models can be called anyway."""
        return None if self._was_whole else "still reading the queue's state from the log"

    async def restore_if_lost(self) -> bool:
        """Whether there was anything to do. Attempts that ran are over, as failures of infrastructure."""
        if await self._store.has_state():
            self._was_whole = True
            return False
        past = Past()
        async for event in self._history.events(ROLLOUTS):
            past.note(event)
        ran = 0
        async for batch in self._batches(past):
            put_back = await self._store.restore(batch)
            pairs = zip(batch, put_back, strict=True)
            running = [one for one, is_back in pairs if is_back and one.state is RolloutState.RUNNING]
            for one in running:
                await self._rollouts.give_up(one.ref, state_lost())
            ran += len(running)
        await self._store.state_restored(past.ended)
        self._was_whole = True
        log.info("the queue's state was read from the log: %s rollouts ended, %s attempts given up", past.ended, ran)
        return True

    async def _batches(self, past: Past) -> AsyncIterator[Sequence[Restored]]:
        batch: list[Restored] = []
        async for event in self._history.events(TASKS):
            match event:
                case TaskEnqueued():
                    found = list(past.of_task(event))
                    batch += [one for one in found if one.state is not RolloutState.ENDED or self._is_fresh(event)]
                    if self._is_fresh(event):
                        await self._store.accept_tasks([(event.task.task_id, encode(event))])
                case QueuePaused() | QueueResumed():
                    await self._store.pause(event.project, isinstance(event, QueuePaused), event.event_time)
                case _:
                    pass
            if len(batch) >= BATCH:
                yield batch
                batch = []
        yield [*batch, *past.of_no_task()]

    def _is_fresh(self, event: TaskEnqueued) -> bool:
        """Whether the store would still remember a task of that age, had it lost nothing."""
        return self._clock.now() - event.event_time < self._kept_for
