"""Gives up on evidence that does not come in time. Only `settle: live` runs it: a replay follows the record."""

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

    A deadline counts from when the end was consumed. After a standstill (this service or Kafka was away) what seems
    missing may simply be unread: then nobody is given up until `grace_s` after the last old record.
    """

    def __init__(
        self,
        handlers: RewardHandlers,
        waiting: WaitingAttempts,
        clock: Clock,
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
        """At the start: this replica has not read anything yet."""
        await self._waiting.mark_behind(self._grace_s)

    async def run(self) -> None:
        """Sweep for ever; a store or a broker that is away is waited for."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.sweep()
            except Retry as error:
                log.warning("the sweep will be tried again: %s", error)

    async def sweep(self) -> None:
        """Settle what is overdue. It then waits for its own record, and comes here again if that is lost."""
        behind = await self._waiting.behind()
        metrics.BEHIND.set(behind)
        now = self._clock.now()
        overdue = [] if behind else await self._waiting.due(now, self._limit)
        if not overdue:
            return
        metrics.OVERDUE.inc(len(overdue))
        await self._handlers.advance(overdue, given_up=True)
        await self._waiting.put_off(overdue, now + timedelta(seconds=self._grace_s))
