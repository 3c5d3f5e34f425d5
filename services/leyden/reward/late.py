"""Late rewards: an evaluation that arrives after its attempt was assessed gives a new revision of the rewards.

An attempt's state is written before its evidence is closed, and replaced only by a later revision. So an evaluation is
either part of the assessed evidence or finds the state here, whenever it arrives. Its reward is computed in `core`.
"""

from collections.abc import Sequence

from leyden.events import Event, SpanRecorded
from leyden.events.codec import REWARDS
from leyden.ids import AttemptRef
from leyden.kafka.delivered import Delivered, Outgoing, Publisher
from leyden.reward import metrics
from leyden.reward.core.assess import Assessment, Rulebook
from leyden.reward.core.evidence import SettledAttempt, StoredItem, arrival_item, evaluation_of, subject_of
from leyden.reward.core.late import LateOutcome, LateState, opened, revise
from leyden.reward.ports import LateStates


class LateRewards:
    """Handles late evaluations. Idempotent: revisions are published before the state; known ones are ignored."""

    def __init__(self, rulebook: Rulebook, states: LateStates | None, publisher: Publisher) -> None:
        self._rulebook = rulebook
        self._states = states if rulebook.late_horizon_s > 0 else None
        self._publisher = publisher

    def arrivals(self, batch: Sequence[Delivered[Event]]) -> list[StoredItem]:
        """Items that record the order in which evaluations arrived; empty if late rewards are off."""
        if self._states is None:
            return []
        return [arrival_item(span, d.offset) for d in batch if (span := evaluation_of(d.event)) is not None]

    async def begin(self, judged: Sequence[tuple[SettledAttempt, Assessment]]) -> None:
        """Save the state of attempts just assessed, and publish revisions for evaluations since their settlement.

        Failed rollouts are skipped: they get no rewards, now or later.
        """
        if self._states is None:
            return
        outgoing: list[Outgoing] = []
        found: dict[str, LateState] = {}
        for attempt, result in judged:
            if attempt.ended.status == "failed":
                continue
            named = attempt.evidence.named_spans(attempt.settled.span_ids)
            settled = [span for span in named if evaluation_of(span) is not None]
            state = opened(self._rulebook, attempt.ended, result, settled)
            for span in attempt.evidence.late_evaluations(attempt.settled):
                state = self._revised(state, span, outgoing)
            found[attempt.subject] = state
        await self._publisher.publish_all(outgoing)
        await self._states.save(found)

    async def on_batch(self, batch: Sequence[Delivered[Event]], closed: set[str]) -> None:
        """Publish a revision for each late evaluation in `batch`. `closed`: subjects of attempts already closed."""
        spans = [span for delivered in batch if (span := evaluation_of(delivered.event)) is not None]
        if not spans:
            return
        before = await self._states.load(list({_subject(span) for span in spans})) if self._states else {}
        after = dict(before)
        outgoing: list[Outgoing] = []
        for span in spans:
            subject = _subject(span)
            if (state := after.get(subject)) is not None:
                fresh = subject in closed or span.event_id not in state.known
                after[subject] = self._revised(state, span, outgoing) if fresh else state
            elif subject in closed:
                metrics.LATE.labels(outcome=LateOutcome.LET_GO).inc()
        await self._publisher.publish_all(outgoing)
        if self._states is not None:
            await self._states.save({s: state for s, state in after.items() if state.revision > before[s].revision})

    def _revised(self, state: LateState, span: SpanRecorded, outgoing: list[Outgoing]) -> LateState:
        revision = revise(self._rulebook, state, span)
        metrics.LATE.labels(outcome=revision.outcome).inc()
        outgoing += [Outgoing(REWARDS, event.rollout_id, event) for event in revision.events]
        return revision.state


def _subject(span: SpanRecorded) -> str:
    assert span.rollout_id is not None
    return subject_of(AttemptRef(span.rollout_id, span.attempt))
