"""Settles attempts whose evidence is overdue. Runs only with `settle: live`; a replay follows the log."""

import asyncio
import logging
from datetime import timedelta

from leyden.clock import Clock
from leyden.kafka.delivered import Retry
from leyden.reward import metrics
from leyden.reward.handlers import RewardHandlers
from leyden.reward.ports import WaitingAttempts

log = logging.getLogger(__name__)


class Sweeper:
    """Settles overdue attempts as incomplete, unless some replica is still reading old records.

    A deadline starts when the end was consumed. After an outage (of this service or Kafka), missing records may only be
    unread, so no attempt is settled as incomplete until `grace_s` after the last old record.
    """

    def __init__(
        self,
        handlers: RewardHandlers,
        waiting: WaitingAttempts,
        clock: Clock,
        *,
        grace_s: float,
        interval_s: float,
        limit: int,
    ) -> None:
        self._handlers = handlers
        self._waiting = waiting
        self._clock = clock
        self._grace_s = grace_s
        self._interval_s = interval_s
        self._limit = limit

    async def hold_off(self) -> None:
        """Start-up step: marks the service as behind, because this replica has read nothing yet."""
        await self._waiting.mark_behind(self._grace_s)

    async def run(self) -> None:
        """Sweep forever. If a store or broker is unavailable, try again at the next interval."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.sweep()
            except Retry as error:
                log.warning("sweep failed, will retry: %s", error)

    async def sweep(self) -> None:
        """Settle overdue attempts. Their deadlines are extended, so that they are tried again if the event is lost."""
        behind = await self._waiting.behind()
        metrics.BEHIND.set(behind)
        now = self._clock.now()
        overdue = [] if behind else await self._waiting.due(now, self._limit)
        if not overdue:
            return
        metrics.OVERDUE.inc(len(overdue))
        await self._handlers.advance(overdue, given_up=True)
        await self._waiting.put_off(overdue, now + timedelta(seconds=self._grace_s))
