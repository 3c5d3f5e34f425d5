"""Applies rules to a settled attempt and builds its reward events. The same evidence and rules give the same bytes."""

from collections.abc import Iterable
from dataclasses import dataclass

from leyden.events import RewardAssigned, RewardsCompleted, RolloutEnded, RolloutSettled
from leyden.ids import derive
from leyden.reward.core.evidence import AttemptEvidence
from leyden.reward.core.failures import described
from leyden.reward.core.rules import Rule
from leyden.reward.core.settle import PRODUCER
from leyden.reward.core.view import view_of
from leyden.reward.core.weighing import RuleTotal, Weighed, intermediate_capped, shaped_budgets, totals, weighed


@dataclass(frozen=True)
class Rulebook:
    """The configured rules, in order, and the limits of what they give."""

    rules: tuple[Rule, ...]
    intermediate_cap: float
    """Cap of all intermediate rewards of an attempt."""
    late_horizon_s: float = 0.0
    """How long after a rollout's end an evaluation revises its rewards; 0: never."""

    @property
    def expects_outcome(self) -> bool:
        """Whether a rule for the outcome is configured. A rule of weight 0 only measures."""
        return any(not rule.intermediate and rule.weight != 0 for rule in self.rules)


@dataclass(frozen=True)
class Assessment:
    """An attempt's rewards, and the event that lists them."""

    rewards: tuple[RewardAssigned, ...]
    completed: RewardsCompleted
    totals: tuple[RuleTotal, ...] = ()
    """Totals of the rules that gave rewards."""


def assess(book: Rulebook, ended: RolloutEnded, settled: RolloutSettled, evidence: AttemptEvidence) -> Assessment:
    """Apply the rules to exactly the evidence that `settled` names. A failed rollout gets no reward.

    A missing outcome is not an outcome of 0: where rules for it are configured and none gave a reward, the event says
    so, and credit leaves the rollout out, whatever its intermediate rewards.
    """
    items: list[Weighed] = []
    failed: list[str] = []
    if ended.status == "succeeded":
        view = view_of(ended, settled, evidence)
        budgets = shaped_budgets(book.rules, book.intermediate_cap)
        for rule in book.rules:
            try:
                items += weighed(rule, view, budgets.get(rule.name))
            except Exception as error:  # noqa: BLE001 - rules are user code: an exception is recorded as data
                failed.append(f"{rule.name}: {described(error)}")
    items = intermediate_capped(items, book.intermediate_cap)
    rewards = tuple(_reward(item, ended) for item in items)
    missing = book.expects_outcome and ended.status == "succeeded" and not any(item.rates_outcome for item in items)
    horizon_s = book.late_horizon_s if ended.status == "succeeded" else 0.0
    return Assessment(rewards, _completed(rewards, failed, ended, missing, horizon_s), tuple(totals(items)))


def _reward(item: Weighed, ended: RolloutEnded) -> RewardAssigned:
    name = item.signal.name or item.rule.name
    evidence = item.signal.evidence
    return RewardAssigned(
        event_id=derive("reward", ended.rollout_id, ended.attempt, item.rule.name, name, evidence.id),
        event_time=ended.event_time,
        producer=PRODUCER,
        rollout_id=ended.rollout_id,
        attempt=ended.attempt,
        rule=item.rule.name,
        name=name,
        value=item.signal.value,
        weight=item.weight,
        evidence=evidence,
        call_id=item.signal.call_id,
    )


def _completed(
    rewards: Iterable[RewardAssigned], failed: list[str], ended: RolloutEnded, outcome_missing: bool, horizon_s: float
) -> RewardsCompleted:
    return RewardsCompleted(
        event_id=derive("rewards-completed", ended.rollout_id, ended.attempt),
        event_time=ended.event_time,
        producer=PRODUCER,
        rollout_id=ended.rollout_id,
        attempt=ended.attempt,
        reward_ids=sorted(reward.event_id for reward in rewards),
        failed_rules=failed,
        outcome_missing=outcome_missing,
        late_horizon_s=horizon_s,
    )
