"""Shows the calls that wait for a model, and cancels those whose attempt is over.

A caller that is gone closes its connection, and its call is cancelled at once. But an agent in a thread cannot be
stopped when its attempt times out, and a machine that vanished closes nothing: their calls would keep an engine busy
for nobody.
"""

import asyncio
import logging

from leyden.gateway.handlers.admission import CallsInFlight
from leyden.gateway.ports import RolloutStore
from leyden.kafka import Retry

log = logging.getLogger(__name__)
KEPT_ROUNDS = 5
"""For so many rounds other replicas show the calls of a replica that is gone."""


class CallWatch:
    """Looks every `interval_s` at the calls of this replica that are at least that old."""

    def __init__(self, calls: CallsInFlight, store: RolloutStore, replica: str, interval_s: float) -> None:
        self._calls = calls
        self._store = store
        self._replica = replica
        self._interval_s = interval_s
        self._is_shown = False

    async def watch_forever(self) -> None:
        """Look again and again."""
        while True:
            try:
                await self.look()
            except Retry as error:
                log.warning("calls in flight will be looked at again: %s", error)
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """One round. Costs nothing while no call is old."""
        waiting = self._calls.waiting_for(self._interval_s)
        if refs := self._calls.attempts(self._interval_s):
            self._calls.cancel(frozenset(await self._store.over(refs)))
        if waiting or self._is_shown:
            await self._store.show_calls(self._replica, waiting, self._interval_s * KEPT_ROUNDS)
        self._is_shown = bool(waiting)
