"""Work that a clock starts: closes groups at their deadline, forgets what never completed.

Deadlines hold only with `close: live`; a replay follows the recorded closings. Forgetting is counted in both.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from leyden.clock import Clock
from leyden.credit import metrics
from leyden.credit.core.section import GroupSection
from leyden.credit.grouping import Grouping
from leyden.credit.ports import EvidenceStore, OpenSubjects, Stores
from leyden.kafka import Retry
from leyden.kafka.progress import LogReading

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """How often a sweep runs, how much one does, and its limits; see `CreditSettings`."""

    interval_s: float = 1.0
    limit: int = 200
    backlog_s: float = 30.0
    open_ttl_s: float = 7 * 86_400.0


class Sweeper:
    """Closes groups whose deadline has passed; forgets attempts and groups that stay incomplete.

    A deadline counts from the first member. A group is closed once everything has been read, by ingest, reward and
    credit, that was in Kafka when its deadline had passed. If that takes longer than `backlog_s`, and after a start, no
    group is closed for `backlog_s`: members may still be on their way.
    """

    def __init__(
        self,
        *,
        grouping: Grouping,
        stores: Stores,
        group: GroupSection,
        reading: LogReading,
        clock: Clock,
        settings: SweepSettings,
    ) -> None:
        self._grouping = grouping
        self._stores = stores
        self._group = group
        self._reading = reading
        self._begun: datetime | None = None
        self._clock = clock
        self._settings = settings

    async def hold_off(self) -> None:
        """Delay deadlines at the start, while this replica has read nothing yet."""
        await self._stores.backlog.mark_behind(self._settings.backlog_s)

    async def run(self) -> None:
        """Sweep for ever; tries again while Redis or Kafka is unavailable."""
        while True:
            await asyncio.sleep(self._settings.interval_s)
            try:
                await self.sweep()
            except Retry as error:
                log.warning("sweep failed, will retry: %s", error)

    async def sweep(self) -> None:
        """Close overdue groups, forget what is too old, and update the gauges."""
        now = self._clock.now()
        await self._close_overdue(now)
        for what, evidence, subjects in (
            ("attempts", self._stores.attempts, self._stores.open_attempts),
            ("groups", self._stores.groups, self._stores.open_groups),
        ):
            await self._age_out(what, evidence, subjects, now)
            await _show(what, subjects, now)

    async def _close_overdue(self, now: datetime) -> None:
        if self._group.deadline_s is None or not self._group.closes_by_deadline:
            return
        behind = await self._stores.backlog.behind()
        metrics.BEHIND.set(behind)
        if behind:
            return
        deadline = timedelta(seconds=self._group.deadline_s)
        if self._begun is None:
            if not await self._stores.deadlines.before(now - deadline, 1):
                return
            await self._reading.begin()
            self._begun = now
        if not await self._reading.done():
            return
        begun, self._begun = self._begun, None
        if (now - begun).total_seconds() > self._settings.backlog_s:
            await self.hold_off()
            return
        if overdue := await self._stores.deadlines.before(begun - deadline, self._settings.limit):
            log.info("closing %d groups past their deadline; the first is %s", len(overdue), overdue[0])
            await self._grouping.advance(overdue, newcomers={}, overdue=True)

    async def _age_out(self, what: str, evidence: EvidenceStore, subjects: OpenSubjects, now: datetime) -> None:
        old = await subjects.before(now - timedelta(seconds=self._settings.open_ttl_s), self._settings.limit)
        if not old:
            return
        there = list(await evidence.names(old))
        await evidence.close(there)
        await subjects.gone(old)
        metrics.AGED_OUT.labels(what=what).inc(len(there))
        if there:
            log.error("forgot %d open %s that never completed; the first is %s", len(there), what, there[0])


async def _show(what: str, subjects: OpenSubjects, now: datetime) -> None:
    open_count = await subjects.count()
    metrics.OPEN.labels(what=what).set(open_count.count)
    age = (now - open_count.oldest).total_seconds() if open_count.oldest is not None else 0.0
    metrics.OLDEST.labels(what=what).set(max(0.0, age))
