"""The life of attempts: claim, heartbeat, end, cancellation, retry; by their runner or by the sweeper.

After a kill at any step, a retry of the request or the sweeper completes it:
claimed, not published → the lease expires; ended, not published → the sweeper publishes the stored end;
published, not settled → published again, byte for byte, and settled.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from leyden.clock import Clock
from leyden.events.codec import ROLLOUTS
from leyden.events.rollouts import RolloutEnded
from leyden.gateway.core import rollouts as core
from leyden.gateway.core.failures import classified
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.rollouts import EndReport, RolloutSpec, RolloutState, Running, StoredEnd
from leyden.gateway.metrics import CLAIMED, DELAYED, ENDED, FAILED, LOST_ATTEMPTS, QUEUED, RUNNING
from leyden.gateway.ports import NOT_WHOLE, CallInFlight, EndOutcome, EndResult, QueueCounts, RolloutStore, RolloutView
from leyden.ids import AttemptRef, derive, new_rollout_id
from leyden.kafka import Outgoing, Publisher, Retry

log = logging.getLogger(__name__)
SWEEP_LIMIT = 100
CANCEL_TRIES = 5
"""Tries of a cancellation while the rollout changes its state; then the caller may repeat it."""


@dataclass(frozen=True, kw_only=True)
class LifeSettings:
    """Times of attempts, in seconds."""

    lease_s: float = 60.0
    claim_poll_s: float = 0.1
    sweep_interval_s: float = 1.0
    unsettled_grace_s: float = 15.0
    loop_calls: int = 5
    """Number of last calls with the same output that make a failed attempt a repetition loop."""


class Rollouts:
    """Claims, heartbeats, ends. A `Refusal` is the caller's fault; after `Retry` the request can be repeated."""

    def __init__(self, store: RolloutStore, publisher: Publisher, clock: Clock, life: LifeSettings) -> None:
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._life = life

    async def claim(
        self,
        runner: str,
        limit: int,
        wait_s: float = 0.0,
        gone: Callable[[], Awaitable[bool]] | None = None,
        project: str | None = None,
    ) -> list[Running]:
        """Claim up to `limit` attempts and log their starts. Empty if none came in `wait_s` or the caller left."""
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            now = self._clock.now()
            until = now + timedelta(seconds=self._life.lease_s)
            claimed = await self._store.claim(limit, runner, now, until, project)
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

    async def begin(self, spec: RolloutSpec, runner: str | None, rollout_id: str | None = None) -> Running:
        """Start a rollout that an agent runs by itself: one attempt, whose lease is the rollout's whole time.

        With a `rollout_id` the request can be repeated and gives the same rollout, in the same bytes. A 409 if that id
        belongs to another rollout, or if this one is over.
        """
        now = self._clock.now()
        running = Running(AttemptRef(rollout_id or new_rollout_id(), 0), spec, now, runner)
        if not await self._store.begin(running, now + timedelta(seconds=spec.timeout_s)):
            running = await self._begun_before(running)
        await self._publisher.publish_all([_started(running)])
        return running

    async def _begun_before(self, asked: Running) -> Running:
        view = await self.find(asked.ref.rollout_id)
        if view.spec != asked.spec or view.state is RolloutState.QUEUED:
            message = f"rollout {asked.ref.rollout_id} was asked for before, with another task or group"
            raise Refusal(409, "rollout_exists", message)
        return await self._running(asked.ref)

    async def heartbeat(self, ref: AttemptRef) -> float:
        """Renew the lease and return its seconds; 409 if the attempt is over, 404 for an unknown rollout."""
        running = await self._running(ref)
        now = self._clock.now()
        until = core.lease_until(running, now, self._life.lease_s)
        if until is None or not await self._store.extend(ref, until):
            raise _over(ref)
        return (until - now).total_seconds()

    async def end(self, ref: AttemptRef, report: EndReport) -> RolloutEnded:
        """End an attempt; returns when Kafka has the end. The same report can be repeated; another one gets a 409."""
        outcome = await self._store.find_end(ref)
        if outcome is None:
            running = await self._running(ref)
            outcome = await self._end(running, report, self._clock.now())
        if outcome.result is EndResult.NOT_RUNNING:
            raise _over(ref)
        if StoredEnd.model_validate_json(outcome.stored).fingerprint != report.fingerprint:
            raise Refusal(
                409, "ended_differently", f"attempt {ref.attempt} of {ref.rollout_id} has ended in another way"
            )
        return await self._publish_end(ref, outcome)

    async def _stored(self, running: Running, report: EndReport, now: datetime) -> StoredEnd:
        """The end to store, with a failure class that takes the attempt's calls into account."""
        failure = None
        if report.status == "failed":
            last, unanswered = await self._store.last_call(running.ref), await self._store.unanswered(running.ref)
            waited = [call.seconds for call in unanswered]
            failure = classified(report.failure, last, self._life.loop_calls, waited)
        return core.ended(running, report, now, failure)

    async def _end(self, running: Running, report: EndReport, now: datetime, lease_over: bool = False) -> EndOutcome:
        end = await self._stored(running, report, now)
        interrupted = core.was_interrupted(end.event.failure)
        return await self._store.end(running.ref, _written(end), now, lease_over, interrupted)

    async def cancel(self, rollout_id: str, reason: str, spec: RolloutSpec | None = None) -> bool:
        """Cancel a rollout: a waiting one never starts, a running one is over. Returns False if it had already ended.

        Returns when Kafka has its end. `spec` is for a rollout that may not be queued yet; without it, 404 if unknown.
        """
        await self.must_be_whole()
        if spec is not None:
            await self._store.enqueue([(rollout_id, spec)])
        for _ in range(CANCEL_TRIES):
            view = await self.find(rollout_id)
            ref = AttemptRef(rollout_id, view.attempt)
            if view.state is RolloutState.ENDED:
                kept = await self._store.find_end(ref)
                return kept is not None and core.was_cancelled(StoredEnd.model_validate_json(kept.stored).event)
            outcome = await self._call_off(ref, view, core.cancelled(reason))
            if outcome.result is not EndResult.NOT_RUNNING:
                ended = await self._publish_end(ref, outcome)
                if ended.final:
                    return core.was_cancelled(ended)
        raise Retry(f"rollout {rollout_id} changed its state while it was being cancelled")

    async def _call_off(self, ref: AttemptRef, view: RolloutView, report: EndReport) -> EndOutcome:
        now = self._clock.now()
        if view.state is RolloutState.QUEUED:
            stored = await self._stored(Running(ref, view.spec, now), report, now)
            return await self._store.withdraw(ref, _written(stored), now)
        return await self._end(_view_running(ref, view, view.started_at or now), report, now)

    async def _publish_end(self, ref: AttemptRef, outcome: EndOutcome) -> RolloutEnded:
        kept = StoredEnd.model_validate_json(outcome.stored).event
        event = kept.model_copy(update={"call_ids": sorted(outcome.call_ids)})
        await self._publisher.publish_all([Outgoing(ROLLOUTS, ref.rollout_id, event, traceparent_of(ref))])
        await self._store.settle(ref, event.final, event.status, event.retry_at)
        if event.failure:
            FAILED.labels(failure_class=event.failure.failure_class).inc()
        ENDED.labels(status=event.status, final=str(event.final).lower()).inc()
        return event

    async def _running(self, ref: AttemptRef) -> Running:
        view = await self.find(ref.rollout_id)
        if view.attempt != ref.attempt or view.state is not core.RolloutState.RUNNING or view.started_at is None:
            raise _over(ref)
        return _view_running(ref, view, view.started_at)

    async def find(self, rollout_id: str) -> RolloutView:
        """A rollout; 404 if it is unknown, `Retry` while the state is incomplete."""
        view = await self._store.find(rollout_id)
        if view is None:
            await self.must_be_whole()
            raise Refusal(404, "rollout_not_found", f"no rollout {rollout_id[:64]}")
        return view

    async def must_be_whole(self) -> None:
        """Raise `Retry` while the store's state is incomplete."""
        if not await self._store.has_state():
            raise Retry(NOT_WHOLE)

    async def counts(self) -> QueueCounts:
        """Numbers of rollouts by state."""
        return await self._store.counts()

    async def calls_in_flight(self) -> list[CallInFlight]:
        """Model calls that wait for an answer, of all replicas, the oldest first."""
        return await self._store.calls_in_flight()

    async def sweep_forever(self) -> None:
        """End lost attempts and finish incomplete steps, repeatedly. Runs in every replica; the store lets one win."""
        while True:
            try:
                await self.sweep()
            except Retry as error:
                log.warning("the sweep will be retried: %s", error)
            await asyncio.sleep(self._life.sweep_interval_s)

    async def sweep(self) -> None:
        """One round."""
        now = self._clock.now()
        for ref in await self._store.expired(now, SWEEP_LIMIT):
            await self._end_lost(ref)
        for ref in await self._store.unsettled(now - timedelta(seconds=self._life.unsettled_grace_s), SWEEP_LIMIT):
            await self.finish(ref)
        counts = await self._store.counts()
        QUEUED.set(counts.queued)
        DELAYED.set(counts.delayed)
        RUNNING.set(counts.running)

    async def finish(self, ref: AttemptRef) -> None:
        """Write the stored end of an attempt, if any, to the log."""
        if outcome := await self._store.find_end(ref):
            await self._publish_end(ref, outcome)

    async def _end_lost(self, ref: AttemptRef) -> None:
        view = await self._store.find(ref.rollout_id)
        if view is None or view.started_at is None:
            return
        now = self._clock.now()
        running = _view_running(ref, view, view.started_at)
        report = core.lost(running, now)
        outcome = await self._end(running, report, now, lease_over=True)
        if outcome.result is EndResult.FIRST and report.failure:
            LOST_ATTEMPTS.labels(failure_class=report.failure.failure_class).inc()
            await self._publish_end(ref, outcome)


def traceparent_of(ref: AttemptRef) -> str:
    """The W3C trace context of an attempt: its trace id and the id of its root span."""
    return f"00-{ref.trace_id}-{derive('rollout-root', *ref)[:16]}-01"


def _view_running(ref: AttemptRef, view: RolloutView, started_at: datetime) -> Running:
    return Running(ref, view.spec, started_at, view.runner, view.interrupted)


def _written(end: StoredEnd) -> bytes:
    return end.model_dump_json().encode()


def _started(running: Running) -> Outgoing:
    event = core.rollout_started(running)
    return Outgoing(ROLLOUTS, event.rollout_id, event, traceparent_of(running.ref))


def _over(ref: AttemptRef) -> Refusal:
    return Refusal(409, "attempt_over", f"attempt {ref.attempt} of {ref.rollout_id} is not under way")
