"""Evidence in → settled or assessed → published. What to decide is in `core`; when to give up is in `sweep`."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from leyden.clock import Clock
from leyden.events import Event, ModelCallRecorded, RolloutEnded
from leyden.events.codec import REWARDS, ROLLOUTS
from leyden.kafka.delivered import Delivered, Outgoing, Publisher
from leyden.reward import metrics
from leyden.reward.core.assess import Assessment, Rulebook, assess
from leyden.reward.core.evidence import AttemptEvidence, stored_item, subject_of
from leyden.reward.core.settle import settle
from leyden.reward.ports import WaitingAttempts
from leyden.state import EvidenceStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """How settlements come about: `decides` False follows those in the log."""

    rulebook: Rulebook
    decides: bool = True
    grace_s: float = 30.0


@dataclass
class _Steps:
    """What one look at some attempts leads to."""

    outgoing: list[Outgoing] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)


class RewardHandlers:
    """Idempotent: state is written before it is used, events are published before an attempt is closed."""

    def __init__(
        self, evidence: EvidenceStore, waiting: WaitingAttempts, publisher: Publisher, policy: Policy, clock: Clock
    ) -> None:
        self._evidence = evidence
        self._waiting = waiting
        self._publisher = publisher
        self._policy = policy
        self._clock = clock

    async def on_batch(self, batch: Sequence[Delivered[Event]]) -> None:
        """Keep the batch's evidence, then take every attempt that it touches and that has ended as far as it can go."""
        events = [delivered.event for delivered in batch]
        items = [item for event in events if (item := stored_item(event)) is not None]
        if self._policy.decides and self._is_backlog(events):
            await self._waiting.mark_behind(self._policy.grace_s)
        await self._evidence.add((item.subject, item.item_id, item.value) for item in items)
        await self._waiting.add(self._deadlines(events))
        await self.advance(await self._waiting.among([item.subject for item in items]))

    async def advance(self, subjects: Sequence[str], given_up: bool = False) -> None:
        """Settle what is complete (or `given_up`), assess what is settled, close what is done."""
        loaded = await self._evidence.load(subjects)
        steps = _Steps()
        for subject, items in loaded.items():
            await self._step(subject, AttemptEvidence.of(items), given_up, steps)
        await self._publisher.publish_all(steps.outgoing)
        await self._evidence.close(steps.finished)
        # One without evidence was closed before, by a handler that did not live to say so here.
        await self._waiting.remove([*steps.finished, *(subject for subject in subjects if subject not in loaded)])

    async def _step(self, subject: str, evidence: AttemptEvidence, given_up: bool, steps: _Steps) -> None:
        ended, settled = evidence.ended, evidence.settled
        if ended is None:
            return
        if not ended.final:
            steps.finished.append(subject)
        elif settled is not None:
            if evidence.has(settled):
                # Rules are other people's code and may take their time: the service stays alive beside them.
                result = await asyncio.to_thread(assess, self._policy.rulebook, ended, settled, evidence)
                _note(ended, result)
                steps.outgoing += [Outgoing(REWARDS, ended.rollout_id, e) for e in (*result.rewards, result.completed)]
                steps.finished.append(subject)
        elif self._policy.decides and (decided := settle(ended, evidence, given_up)) is not None:
            metrics.SETTLED.labels(complete=str(decided.complete).lower()).inc()
            steps.outgoing.append(Outgoing(ROLLOUTS, ended.rollout_id, decided))

    def _deadlines(self, events: Sequence[Event]) -> dict[str, datetime]:
        until = self._clock.now() + timedelta(seconds=self._policy.grace_s)
        return {subject_of(event.ref): until for event in events if isinstance(event, RolloutEnded)}

    def _is_backlog(self, events: Sequence[Event]) -> bool:
        """By the gateway's records alone: spans carry the clock of whatever machine the agent is on."""
        old = self._clock.now() - timedelta(seconds=self._policy.grace_s)
        return any(isinstance(e, ModelCallRecorded | RolloutEnded) and e.event_time < old for e in events)


def _note(ended: RolloutEnded, result: Assessment) -> None:
    metrics.ASSESSED.labels(status=ended.status).inc()
    for reward in result.rewards:
        metrics.VALUES.labels(rule=reward.rule).observe(reward.value * reward.weight)
    for failure in result.completed.failed_rules:
        metrics.FAILED_RULES.labels(rule=failure.partition(":")[0]).inc()
        log.warning("rule failed for rollout %s attempt %d: %s", ended.rollout_id, ended.attempt, failure)
