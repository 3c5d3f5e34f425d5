"""Rules over one settled attempt → its reward events. The same evidence and rules give the same bytes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from leyden.events import RewardAssigned, RewardsCompleted, RolloutEnded, RolloutSettled
from leyden.ids import derive
from leyden.reward.core.evidence import AttemptEvidence
from leyden.reward.core.rules import Rule, Signal
from leyden.reward.core.settle import PRODUCER
from leyden.reward.core.view import RolloutView, view_of


@dataclass(frozen=True)
class Rulebook:
    """The rules in force, in order, and what all intermediate signals of an attempt may weigh together."""

    rules: tuple[Rule, ...]
    intermediate_cap: float = 0.5


@dataclass(frozen=True)
class Assessment:
    """An attempt's rewards, and the event that says that these are all."""

    rewards: tuple[RewardAssigned, ...]
    completed: RewardsCompleted


@dataclass(frozen=True)
class _Weighed:
    rule: Rule
    signal: Signal
    weight: float

    @property
    def size(self) -> float:
        return abs(self.signal.value * self.weight)


def assess(book: Rulebook, ended: RolloutEnded, settled: RolloutSettled, evidence: AttemptEvidence) -> Assessment:
    """Judge exactly the evidence that `settled` names. A failed rollout gets no reward at all."""
    weighed: list[_Weighed] = []
    failed: list[str] = []
    if ended.status == "succeeded":
        view = view_of(ended, settled, evidence)
        for rule in book.rules:
            try:
                weighed += _capped(_judged(rule, view), rule.cap)
            except Exception as error:  # noqa: BLE001 - rules are other people's code: one that raises is data
                failed.append(f"{rule.name}: {type(error).__name__}: {error}"[:500])
    rewards = tuple(_reward(item, ended) for item in _intermediate_capped(weighed, book.intermediate_cap))
    return Assessment(rewards, _completed(rewards, failed, ended))


def _judged(rule: Rule, view: RolloutView) -> list[_Weighed]:
    found: dict[tuple[str, str], _Weighed] = {}
    for signal in rule.signals(view):
        if not math.isfinite(signal.value):
            raise ValueError(f"{signal.name or rule.name} is {signal.value}, not a finite number")
        key = (signal.name or rule.name, signal.evidence.id)
        if key in found:
            raise ValueError(f"two signals {key[0]} for {key[1]}")
        found[key] = _Weighed(rule, signal, rule.weight)
    return list(found.values())


def _intermediate_capped(weighed: Sequence[_Weighed], cap: float) -> list[_Weighed]:
    """All of `weighed` in order, the intermediate ones scaled together to at most `cap`."""
    capped = iter(_capped([item for item in weighed if item.rule.intermediate], cap))
    return [next(capped) if item.rule.intermediate else item for item in weighed]


def _capped(weighed: Sequence[_Weighed], cap: float | None) -> list[_Weighed]:
    """Weights scaled alike so that the absolute contributions sum to at most `cap`; values stay what was seen."""
    total = math.fsum(item.size for item in weighed)
    if cap is None or total <= cap:
        return list(weighed)
    return [replace(item, weight=item.weight * (cap / total)) for item in weighed]


def _reward(item: _Weighed, ended: RolloutEnded) -> RewardAssigned:
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


def _completed(rewards: Iterable[RewardAssigned], failed: list[str], ended: RolloutEnded) -> RewardsCompleted:
    return RewardsCompleted(
        event_id=derive("rewards-completed", ended.rollout_id, ended.attempt),
        event_time=ended.event_time,
        producer=PRODUCER,
        rollout_id=ended.rollout_id,
        attempt=ended.attempt,
        reward_ids=sorted(reward.event_id for reward in rewards),
        failed_rules=failed,
    )
