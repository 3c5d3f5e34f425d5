"""What only a clock can say: that a group is overdue, and that evidence was waited for long enough.

Deadlines are for `close: live` alone: a replay follows the record. Ageing out is for both, and is always counted.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from leyden.clock import Clock
from leyden.credit import metrics
from leyden.credit.core.rules import Rules
from leyden.credit.grouping import Grouping
from leyden.credit.ports import EvidenceStore, OpenSubjects, Stores
from leyden.kafka import Retry

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How often to look, at how many, how long to hold off for a backlog, and when to forget."""

    interval_s: float = 1.0
    limit: int = 200
    backlog_s: float = 30.0
    open_ttl_s: float = 7 * 86_400.0


class Sweeper:
    """Closes groups whose deadline has passed, unless some replica still reads old records; forgets what is stuck.

    A deadline counts from the first member. After a standstill (this service or Kafka was away) members that seem
    missing may simply be unread: then no group is closed until `backlog_s` after the last old record.
    """

    def __init__(self, grouping: Grouping, stores: Stores, rules: Rules, clock: Clock, patience: Patience) -> None:
        self._grouping = grouping
        self._stores = stores
        self._rules = rules.group
        self._clock = clock
        self._patience = patience

    async def hold_off(self) -> None:
        """At the start: this replica has not read anything yet."""
        await self._stores.backlog.mark_behind(self._patience.backlog_s)

    async def run(self) -> None:
        """Sweep for ever; a store or a broker that is away is waited for."""
        while True:
            await asyncio.sleep(self._patience.interval_s)
            try:
                await self.sweep()
            except Retry as error:
                log.warning("the sweep will be tried again: %s", error)

    async def sweep(self) -> None:
        """Close what is overdue, forget what is too old, and say how much is open."""
        now = self._clock.now()
        await self._close_overdue(now)
        for what, evidence, subjects in (
            ("attempts", self._stores.attempts, self._stores.open_attempts),
            ("groups", self._stores.groups, self._stores.open_groups),
        ):
            await self._age_out(what, evidence, subjects, now)
            await _show(what, subjects, now)

    async def _close_overdue(self, now: datetime) -> None:
        if self._rules.deadline_s is None or not self._rules.decides:
            return
        behind = await self._stores.backlog.behind()
        metrics.BEHIND.set(behind)
        if behind:
            return
        due = now - timedelta(seconds=self._rules.deadline_s)
        if overdue := await self._stores.deadlines.before(due, self._patience.limit):
            log.info("closing %d groups whose deadline has passed, the first of them %s", len(overdue), overdue[0])
            await self._grouping.advance(overdue, {}, overdue=True)

    async def _age_out(self, what: str, evidence: EvidenceStore, subjects: OpenSubjects, now: datetime) -> None:
        old = await subjects.before(now - timedelta(seconds=self._patience.open_ttl_s), self._patience.limit)
        if not old:
            return
        there = list(await evidence.names(old))
        await evidence.close(there)
        await subjects.gone(old)
        metrics.AGED_OUT.labels(what=what).inc(len(there))
        if there:
            log.error("%d open %s were never completed and are forgotten, the first of them %s", *_first(what, there))


async def _show(what: str, subjects: OpenSubjects, now: datetime) -> None:
    census = await subjects.census()
    metrics.OPEN.labels(what=what).set(census.count)
    age = (now - census.oldest).total_seconds() if census.oldest is not None else 0.0
    metrics.OLDEST.labels(what=what).set(max(0.0, age))


def _first(what: str, there: list[str]) -> tuple[int, str, str]:
    return len(there), what, there[0]
