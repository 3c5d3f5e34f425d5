"""Handles events: stores evidence, then settles, judges and assesses attempts and publishes their rewards.

Decisions are in `core`, timeouts in `sweep`, late rewards in `late`. Judges are asked in `judges`, outside this loop;
their verdicts arrive here as events.
"""

import asyncio
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from leyden.clock import Clock
from leyden.events import Event, RolloutEnded
from leyden.events.codec import REWARDS, ROLLOUTS
from leyden.kafka.delivered import Delivered, Outgoing, Publisher
from leyden.reward import metrics
from leyden.reward.answering import answered_rulebooks
from leyden.reward.core.assess import Assessment, Rulebook, assess
from leyden.reward.core.evidence import (
    AttemptEvidence,
    SettledAttempt,
    StoredItem,
    is_late_span,
    stored_item,
    subject_of,
)
from leyden.reward.core.judging import JudgeSettings, lacking
from leyden.reward.core.settle import settle
from leyden.reward.late import LateRewards
from leyden.reward.ports import Functions, JudgeSubmitter, WaitingAttempts
from leyden.state import EvidenceStore

log = logging.getLogger(__name__)
TOGETHER = 64
"""Attempts assessed and closed at a time. If a later chunk fails, the work of slow functions for this one is kept."""

JUDGING = timedelta(minutes=10)
"""How long an attempt may wait for its judges before the sweep checks it again."""


@dataclass(frozen=True)
class RewardConfig:
    """Rules and judges. `decides` False: attempts are not settled here but by settlements in the log."""

    rulebook: Rulebook
    decides: bool = True
    judges: tuple[JudgeSettings, ...] = ()


@dataclass
class _Steps:
    """What to do next for some attempts."""

    outgoing: list[Outgoing] = field(default_factory=list)
    settled: list[SettledAttempt] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)


class RewardHandlers:
    """The handler of reward. Idempotent: state is written before it is used, events published before closing."""

    def __init__(
        self,
        *,
        evidence: EvidenceStore,
        waiting: WaitingAttempts,
        publisher: Publisher,
        config: RewardConfig,
        clock: Clock,
        submitter: JudgeSubmitter | None = None,
        late: LateRewards | None = None,
        functions: Functions | None = None,
    ) -> None:
        self._evidence = evidence
        self._waiting = waiting
        self._publisher = publisher
        self._config = config
        self._clock = clock
        self._submitter = submitter
        self._late = late or LateRewards(config.rulebook, None, publisher)
        self._functions = functions

    async def on_batch(self, batch: Sequence[Delivered[Event]]) -> None:
        """Store the batch's evidence, then call `advance` for all attempts in it that have ended."""
        events = [delivered.event for delivered in batch]
        items = [item for event in events if (item := stored_item(event)) is not None]
        closed = await self._evidence.add(_rows([*items, *self._late.arrivals(batch)]))
        metrics.LATE_SPANS.inc(sum(is_late_span(event, closed) for event in events))
        await self._waiting.add([subject_of(event.ref) for event in events if isinstance(event, RolloutEnded)])
        waiting = await self._waiting.among([item.subject for item in items])
        await self.advance(list(waiting), unread={subject for subject, is_unread in waiting.items() if is_unread})
        await self._late.on_batch(batch, closed)

    async def advance(
        self, subjects: Sequence[str], *, unread: Collection[str] = frozenset(), given_up: bool = False
    ) -> None:
        """Settle attempts that are complete (or `given_up`); assess and close those that are settled and judged.

        Those in `unread` are not settled, as evidence that was acknowledged before their end may be missing.
        """
        loaded = await self._evidence.load(subjects)
        steps = _Steps()
        for subject, items in loaded.items():
            decides = self._config.decides and subject not in unread
            self._plan(subject, AttemptEvidence.of(items), decides=decides, given_up=given_up, steps=steps)
        ready = await self._judged(steps.settled)
        await self._publisher.publish_all(steps.outgoing)
        for at in range(0, len(ready), TOGETHER):
            await self._complete(ready[at : at + TOGETHER])
        await self._evidence.close(steps.finished)
        # A subject without evidence was closed by a handler that crashed before removing it from here.
        await self._waiting.remove([*steps.finished, *(subject for subject in subjects if subject not in loaded)])

    async def _judged(self, settled: Sequence[SettledAttempt]) -> list[SettledAttempt]:
        """Submit attempts to their judges. Returns those that wait for no verdict."""
        if self._submitter is None:
            return list(settled)
        await self._submitter.submit(settled)
        waits = {attempt.subject for attempt in settled if lacking(self._config.judges, attempt)}
        await self._waiting.put_off(list(waits), self._clock.now() + JUDGING)
        return [attempt for attempt in settled if attempt.subject not in waits]

    async def _complete(self, ready: Sequence[SettledAttempt]) -> None:
        """Assess attempts, publish their rewards and close them."""
        assessed = await self._assess(ready)
        await self._publisher.publish_all(
            [
                Outgoing(REWARDS, attempt.ended.rollout_id, event)
                for attempt, result in zip(ready, assessed, strict=True)
                for event in (*result.rewards, result.completed)
            ]
        )
        await self._late.begin(list(zip(ready, assessed, strict=True)))
        closed = [attempt.subject for attempt in ready]
        await self._evidence.close(closed)
        await self._waiting.remove(closed)

    def _plan(self, subject: str, evidence: AttemptEvidence, *, decides: bool, given_up: bool, steps: _Steps) -> None:
        ended, settled = evidence.ended, evidence.settled
        if ended is None:
            return
        if not ended.final:
            steps.finished.append(subject)
        elif settled is not None:
            if evidence.has(settled):
                steps.settled.append(SettledAttempt(subject, ended, settled, evidence))
        elif decides and (decided := settle(ended, evidence, given_up)) is not None:
            metrics.SETTLED.labels(complete=str(decided.complete).lower()).inc()
            steps.outgoing.append(Outgoing(ROLLOUTS, ended.rollout_id, decided))

    async def _assess(self, attempts: Sequence[SettledAttempt]) -> list[Assessment]:
        """Rules are user code and may be slow, so they run on another thread."""
        books = await answered_rulebooks(self._config.rulebook, attempts, self._functions)
        results = [
            await asyncio.to_thread(assess, book, attempt.ended, attempt.settled, attempt.evidence)
            for book, attempt in zip(books, attempts, strict=True)
        ]
        for attempt, result in zip(attempts, results, strict=True):
            _note(attempt.ended, result)
        return results


def _rows(items: Sequence[StoredItem]) -> list[tuple[str, str, bytes]]:
    return [(item.subject, item.item_id, item.value) for item in items]


def _note(ended: RolloutEnded, result: Assessment) -> None:
    metrics.ASSESSED.labels(status=ended.status).inc()
    for reward in result.rewards:
        metrics.VALUES.labels(rule=reward.rule).observe(reward.value * reward.weight)
    for total in result.totals:
        kind = "intermediate" if total.intermediate else "outcome"
        metrics.ROLLOUT_VALUES.labels(rule=total.rule, kind=kind).observe(total.contribution)
        metrics.CAPPED.labels(rule=total.rule).inc(total.capped)
    for failure in result.completed.failed_rules:
        metrics.FAILED_RULES.labels(rule=failure.partition(":")[0]).inc()
        log.warning("rule failed for rollout %s attempt %d: %s", ended.rollout_id, ended.attempt, failure)
