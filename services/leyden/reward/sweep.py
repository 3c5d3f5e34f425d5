"""Settles attempts once their evidence is read, and those that are overdue.

Runs only with `settle: live`; a replay follows the log.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from leyden.clock import Clock
from leyden.kafka.delivered import Retry
from leyden.kafka.progress import LogReading
from leyden.reward import metrics
from leyden.reward.handlers import RewardHandlers
from leyden.reward.ports import WaitingAttempts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Begun:
    number: int
    at: datetime


class Sweeper:
    """Decides when no more evidence of an attempt is waited for. Time alone decides nothing.

    A *reading* is finished when everything has been read that was in Kafka at its beginning, by ingest and by reward.
    An attempt is looked at after a reading that began after its end, so that whatever was acknowledged before the end
    counts. If something is missing then, it is given up after a reading that began `grace_s` later: while a service on
    the way stands still, no reading is finished and nothing is given up.
    """

    def __init__(
        self,
        *,
        handlers: RewardHandlers,
        waiting: WaitingAttempts,
        reading: LogReading,
        clock: Clock,
        grace_s: float,
        interval_s: float,
        limit: int,
    ) -> None:
        self._handlers = handlers
        self._waiting = waiting
        self._reading = reading
        self._clock = clock
        self._grace = timedelta(seconds=grace_s)
        self._interval_s = interval_s
        self._limit = limit
        self._begun: _Begun | None = None
        self._was_down = False

    async def hold_off(self) -> None:
        """Start-up step: agents may still be sending what they could not send while this service was away."""
        await self._waiting.mark_behind(self._grace.total_seconds())

    async def run(self) -> None:
        """Sweep forever. If a store or broker is unavailable, try again at the next interval."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.sweep()
            except Retry as error:
                self._was_down = True
                log.warning("sweep failed, will retry: %s", error)

    async def sweep(self) -> None:
        """Begin a reading if an attempt needs one; if it is finished, settle what it allows."""
        if self._was_down:
            await self.hold_off()
            self._was_down = False
        now = self._clock.now()
        if self._begun is None:
            if not await self._waiting.any_due(now):
                metrics.READING_SECONDS.set(0)
                return
            number = await self._waiting.begin_reading()
            await self._reading.begin()
            self._begun = _Begun(number, now)
        is_done = await self._reading.done()
        metrics.READING_SECONDS.set((now - self._begun.at).total_seconds())
        if is_done:
            finished, self._begun = self._begun, None
            await self._settle_read(finished)
            await self._give_up(finished)

    async def _settle_read(self, finished: _Begun) -> None:
        while subjects := await self._waiting.unread(finished.number, self._limit):
            await self._handlers.advance(subjects)
            await self._waiting.have_read(subjects, self._clock.now() + self._grace)

    async def _give_up(self, finished: _Begun) -> None:
        """Deadlines are extended, so that an attempt is tried again if its settlement is lost."""
        behind = await self._waiting.behind()
        metrics.BEHIND.set(behind)
        overdue = [] if behind else await self._waiting.due(finished.at, self._limit)
        if overdue:
            metrics.OVERDUE.inc(len(overdue))
            await self._handlers.advance(overdue, given_up=True)
            await self._waiting.put_off(overdue, self._clock.now() + self._grace)
