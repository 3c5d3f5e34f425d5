"""Late rewards: decides which late evaluations count, and builds the revision for each. No IO.

Revision n belongs to the n-th late evaluation, in log order, that gives a reward. It does not depend on the clock or on
the order in which other topics are read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from pydantic import AwareDatetime, Field

from leyden.events import RewardAssigned, RewardsCompleted, RolloutEnded, SpanRecorded
from leyden.events.base import Record
from leyden.ids import AttemptRef, derive
from leyden.reward.core.assess import Assessment, Rulebook
from leyden.reward.core.rules import Rule
from leyden.reward.core.settle import PRODUCER
from leyden.reward.core.view import RolloutView, TaskView
from leyden.reward.core.weighing import Weighed, capped, shaping_of, weighed


class LateOutcome(StrEnum):
    """The outcome of an evaluation that arrived after the settlement."""

    REVISED = "revised"
    """It gave a reward, and a new revision."""
    DUPLICATE = "duplicate"
    """It counts already: in the settlement or in an earlier revision."""
    NO_OPINION = "no_opinion"
    """No rule gives a reward for it (a label without a number, say)."""
    FAILED = "failed"
    """A rule failed on it. Earlier rewards are unchanged."""
    PAST_HORIZON = "past_horizon"
    """It arrived more than `late_horizon_s` after the rollout's end."""
    LET_GO = "let_go"
    """Its attempt can get no more rewards: it failed, was retried, or its state expired; or the horizon is 0."""


class LateState(Record):
    """The state of an assessed attempt, stored as long as late rewards count."""

    ended_at: AwareDatetime
    revision: int = 0
    reward_ids: list[str]
    failed_rules: list[str] = Field(default_factory=list)
    outcome_missing: bool = False
    known: list[str]
    """Event ids of the evaluations already counted."""
    spent: dict[str, float] = Field(default_factory=dict)
    """Absolute contributions so far, for each rule with a cap."""
    spent_intermediate: float = 0.0


@dataclass(frozen=True)
class Revision:
    """The result of one late evaluation: the new state, and the events (rewards and the new `RewardsCompleted`)."""

    outcome: LateOutcome
    state: LateState
    events: tuple[RewardAssigned | RewardsCompleted, ...] = ()


def opened(book: Rulebook, ended: RolloutEnded, result: Assessment, settled: Sequence[SpanRecorded]) -> LateState:
    """The state at revision 0. `settled`: the evaluations named by the settlement."""
    rules = {rule.name: rule for rule in book.rules}
    spent: dict[str, float] = {}
    intermediate = 0.0
    for reward in result.rewards:
        size = abs(reward.value * reward.weight)
        if rules[reward.rule].cap is not None:
            spent[reward.rule] = spent.get(reward.rule, 0.0) + size
        if rules[reward.rule].intermediate:
            intermediate += size
    return LateState(
        ended_at=ended.event_time,
        reward_ids=result.completed.reward_ids,
        failed_rules=result.completed.failed_rules,
        outcome_missing=result.completed.outcome_missing,
        known=sorted(span.event_id for span in settled),
        spent=spent,
        spent_intermediate=intermediate,
    )


def revise(book: Rulebook, state: LateState, span: SpanRecorded) -> Revision:
    """Apply to one late evaluation the rules that accept late ones, within what is left of their caps."""
    if span.event_id in state.known:
        return Revision(LateOutcome.DUPLICATE, state)
    if span.event_time - state.ended_at > timedelta(seconds=book.late_horizon_s):
        return Revision(LateOutcome.PAST_HORIZON, state)
    assert span.rollout_id is not None
    view = _view(span, AttemptRef(span.rollout_id, span.attempt))
    rewards: list[RewardAssigned] = []
    outcome_missing = state.outcome_missing
    after = state
    for rule in book.rules:
        if not rule.judges_late or shaping_of(rule) is not None:
            continue  # a potential belongs to a step of the episode, which has ended
        try:
            items = capped(weighed(rule, view, None), _left(book, rule, after))
        except Exception:  # noqa: BLE001 - rules are user code: an exception is recorded as data
            return Revision(LateOutcome.FAILED, state)
        rewards += [_reward(item, view, span) for item in items]
        outcome_missing = outcome_missing and not any(item.rates_outcome for item in items)
        after = _with_spent(after, rule, math.fsum(abs(item.contribution) for item in items))
    if not rewards:
        return Revision(LateOutcome.NO_OPINION, state)
    after = after.model_copy(
        update={
            "revision": state.revision + 1,
            "reward_ids": sorted([*state.reward_ids, *(reward.event_id for reward in rewards)]),
            "known": sorted([*state.known, span.event_id]),
            "outcome_missing": outcome_missing,
        }
    )
    return Revision(LateOutcome.REVISED, after, (*rewards, _completed(book, after, view, span)))


def _view(span: SpanRecorded, ref: AttemptRef) -> RolloutView:
    """A view with only the evaluation: the other evidence may be deleted already, so rules never see it here."""
    return RolloutView(
        rollout_id=ref.rollout_id,
        attempt=ref.attempt,
        task=TaskView(),
        calls=(),
        spans=(span,),
        output=None,
        status="succeeded",
        reward=None,
    )


def _left(book: Rulebook, rule: Rule, state: LateState) -> float | None:
    """How much of the rule's cap and of the intermediate cap is left; None: no cap."""
    left = [] if rule.cap is None else [rule.cap - state.spent.get(rule.name, 0.0)]
    left += [book.intermediate_cap - state.spent_intermediate] if rule.intermediate else []
    return max(0.0, min(left)) if left else None


def _with_spent(state: LateState, rule: Rule, size: float) -> LateState:
    spent = state.spent if rule.cap is None else state.spent | {rule.name: state.spent.get(rule.name, 0.0) + size}
    intermediate = state.spent_intermediate + (size if rule.intermediate else 0.0)
    return state.model_copy(update={"spent": spent, "spent_intermediate": intermediate})


def _reward(item: Weighed, view: RolloutView, span: SpanRecorded) -> RewardAssigned:
    name = item.signal.name or item.rule.name
    return RewardAssigned(
        event_id=derive("reward", view.rollout_id, view.attempt, item.rule.name, name, item.signal.evidence.id),
        event_time=span.event_time,
        producer=PRODUCER,
        rollout_id=view.rollout_id,
        attempt=view.attempt,
        rule=item.rule.name,
        name=name,
        value=item.signal.value,
        weight=item.weight,
        evidence=item.signal.evidence,
        call_id=item.signal.call_id,
    )


def _completed(book: Rulebook, state: LateState, view: RolloutView, span: SpanRecorded) -> RewardsCompleted:
    return RewardsCompleted(
        event_id=derive("rewards-completed", view.rollout_id, view.attempt, state.revision),
        event_time=span.event_time,
        producer=PRODUCER,
        rollout_id=view.rollout_id,
        attempt=view.attempt,
        reward_ids=state.reward_ids,
        revision=state.revision,
        failed_rules=state.failed_rules,
        outcome_missing=state.outcome_missing,
        late_horizon_s=book.late_horizon_s,
    )
