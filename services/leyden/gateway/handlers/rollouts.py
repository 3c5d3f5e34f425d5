"""The life of attempts: claimed, kept alive, ended, tried again; by their runner or by the sweeper.

Whatever step a kill leaves behind, a retry of the request or the sweeper completes:
claimed, not yet published → the lease runs out; ended, not yet published → the sweeper publishes the kept end;
published, not yet settled → published again, byte for byte, and settled.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from leyden.clock import Clock
from leyden.events.codec import ROLLOUTS
from leyden.events.rollouts import RolloutEnded
from leyden.gateway.core import rollouts as core
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.rollouts import EndReport, RolloutSpec, Running, StoredEnd
from leyden.gateway.metrics import CLAIMED, ENDED, LOST_ATTEMPTS, QUEUED, RUNNING
from leyden.gateway.ports import EndOutcome, EndResult, QueueCounts, RolloutStore, RolloutView
from leyden.ids import AttemptRef, derive, new_rollout_id
from leyden.kafka import Outgoing, Publisher, Retry

log = logging.getLogger(__name__)
SWEEP_LIMIT = 100


@dataclass(frozen=True)
class LifeSettings:
    """The times of an attempt's life, in seconds."""

    lease_s: float = 60.0
    claim_poll_s: float = 0.1
    sweep_interval_s: float = 1.0
    unsettled_grace_s: float = 15.0


class Rollouts:
    """Claims, heartbeats, ends. Refusals are the caller's; `Retry` means that the same request may be sent again."""

    def __init__(self, store: RolloutStore, publisher: Publisher, clock: Clock, life: LifeSettings) -> None:
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._life = life

    async def claim(
        self, runner: str, limit: int, wait_s: float = 0.0, gone: Callable[[], Awaitable[bool]] | None = None
    ) -> list[Running]:
        """Up to `limit` attempts, begun in the log; an empty list when none came within `wait_s` or the caller left."""
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            now = self._clock.now()
            claimed = await self._store.claim(limit, runner, now, now + timedelta(seconds=self._life.lease_s))
            if claimed:
                await self._publish_claimed(claimed)
                return claimed
            if asyncio.get_running_loop().time() >= deadline:
                return []
            await asyncio.sleep(self._life.claim_poll_s)
            if gone is not None and await gone():
                return []

    async def _publish_claimed(self, claimed: Sequence[Running]) -> None:
        try:
            await self._publisher.publish_all([_started(running) for running in claimed])
        except Retry:
            await self._store.unclaim([running.ref for running in claimed])
            raise
        CLAIMED.inc(len(claimed))

    async def begin(self, spec: RolloutSpec, runner: str | None) -> Running:
        """An agent begins a rollout of its own accord: its lease is the rollout's whole time, and it is tried once."""
        now = self._clock.now()
        running = Running(AttemptRef(new_rollout_id(), 0), spec, now, runner)
        await self._store.begin(running, now + timedelta(seconds=spec.timeout_s))
        await self._publisher.publish_all([_started(running)])
        return running

    async def heartbeat(self, ref: AttemptRef) -> float:
        """Renew the lease and return its seconds; 409 when the attempt is over, 404 for an unknown rollout."""
        running = await self._running(ref)
        now = self._clock.now()
        until = core.lease_until(running, now, self._life.lease_s)
        if until is None or not await self._store.extend(ref, until):
            raise _over(ref)
        return (until - now).total_seconds()

    async def end(self, ref: AttemptRef, report: EndReport) -> RolloutEnded:
        """End an attempt; returns when Kafka has its end. The same report again gives the same; another is a 409."""
        outcome = await self._store.find_end(ref)
        if outcome is None:
            running = await self._running(ref)
            now = self._clock.now()
            stored = core.ended(running, report, now).model_dump_json().encode()
            outcome = await self._store.end(ref, stored, now, lease_over=False)
        if outcome.result is EndResult.NOT_RUNNING:
            raise _over(ref)
        if StoredEnd.model_validate_json(outcome.stored).fingerprint != report.fingerprint:
            raise Refusal(
                409, "ended_differently", f"attempt {ref.attempt} of {ref.rollout_id} has ended in another way"
            )
        return await self._publish_end(ref, outcome)

    async def _publish_end(self, ref: AttemptRef, outcome: EndOutcome) -> RolloutEnded:
        kept = StoredEnd.model_validate_json(outcome.stored).event
        event = kept.model_copy(update={"call_ids": sorted(outcome.call_ids)})
        await self._publisher.publish_all([Outgoing(ROLLOUTS, ref.rollout_id, event, traceparent_of(ref))])
        await self._store.settle(ref, event.final, event.status)
        ENDED.labels(status=event.status, final=str(event.final).lower()).inc()
        return event

    async def _running(self, ref: AttemptRef) -> Running:
        view = await self.find(ref.rollout_id)
        if view.attempt != ref.attempt or view.state is not core.RolloutState.RUNNING or view.started_at is None:
            raise _over(ref)
        return Running(ref, view.spec, view.started_at, view.runner)

    async def find(self, rollout_id: str) -> RolloutView:
        """A rollout; 404 when it is unknown."""
        view = await self._store.find(rollout_id)
        if view is None:
            raise Refusal(404, "rollout_not_found", f"no rollout {rollout_id[:64]}")
        return view

    async def counts(self) -> QueueCounts:
        """How many rollouts stand where."""
        return await self._store.counts()

    async def sweep_forever(self) -> None:
        """End what was lost and finish what was begun, in any replica; the store lets one of them win."""
        while True:
            try:
                await self.sweep()
            except Retry as error:
                log.warning("the sweep will go on later: %s", error)
            await asyncio.sleep(self._life.sweep_interval_s)

    async def sweep(self) -> None:
        """One round."""
        now = self._clock.now()
        for ref in await self._store.expired(now, SWEEP_LIMIT):
            await self._end_lost(ref)
        for ref in await self._store.unsettled(now - timedelta(seconds=self._life.unsettled_grace_s), SWEEP_LIMIT):
            if outcome := await self._store.find_end(ref):
                await self._publish_end(ref, outcome)
        counts = await self._store.counts()
        QUEUED.set(counts.queued)
        RUNNING.set(counts.running)

    async def _end_lost(self, ref: AttemptRef) -> None:
        view = await self._store.find(ref.rollout_id)
        if view is None or view.started_at is None:
            return
        now = self._clock.now()
        running = Running(ref, view.spec, view.started_at, view.runner)
        report = core.lost(running, now)
        stored = core.ended(running, report, now).model_dump_json().encode()
        outcome = await self._store.end(ref, stored, now, lease_over=True)
        if outcome.result is EndResult.FIRST and report.failure:
            LOST_ATTEMPTS.labels(failure_class=report.failure.failure_class).inc()
            await self._publish_end(ref, outcome)


def traceparent_of(ref: AttemptRef) -> str:
    """The W3C trace context under which an attempt runs: its trace id and the id of its root span."""
    return f"00-{ref.trace_id}-{derive('rollout-root', *ref)[:16]}-01"


def _started(running: Running) -> Outgoing:
    event = core.rollout_started(running)
    return Outgoing(ROLLOUTS, event.rollout_id, event, traceparent_of(running.ref))


def _over(ref: AttemptRef) -> Refusal:
    return Refusal(409, "attempt_over", f"attempt {ref.attempt} of {ref.rollout_id} is not under way")
