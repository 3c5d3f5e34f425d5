"""Applies weights and caps to signals. Caps keep intermediate rewards from outweighing the outcome."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from leyden.events.base import MAX_REWARD, in_reward_range
from leyden.reward.core.rules.base import IntermediateRule, Rule, Shaping, Signal
from leyden.reward.core.shaping import shaped
from leyden.reward.core.view import RolloutView


@dataclass(frozen=True)
class Weighed:
    """A signal with its final weight."""

    rule: Rule
    signal: Signal
    weight: float

    @property
    def contribution(self) -> float:
        """The amount that it adds to the return."""
        return self.signal.value * self.weight

    @property
    def rates_outcome(self) -> bool:
        """Whether it rates the rollout's outcome: of any outcome rule, or a person's rating of the whole rollout.

        A signal without weight rates nothing: its rule has none, or its cap was spent.
        """
        rule = self.rule
        return rule.rates_outcome and self.weight != 0 and (not rule.intermediate or self.signal.call_id is None)


@dataclass(frozen=True)
class RuleTotal:
    """Total of one rule in one attempt, for metrics."""

    rule: str
    intermediate: bool
    signals: int
    contribution: float
    capped: bool
    """Whether the rule's cap or the intermediate cap reduced its weight."""


def default_cap(rules: Iterable[Rule], outcome_scale: float) -> float:
    """Default intermediate cap: half the difference between a good and a bad outcome.

    Intermediate sums of two attempts differ by at most twice the cap, so a bad outcome can never be worth more than a
    good one. If there are several outcome rules, the one with the smallest weight counts; weights of 0 are ignored.
    """
    spreads = [
        min(outcome_scale * abs(rule.weight), math.inf if rule.cap is None else rule.cap)
        for rule in rules
        if not rule.intermediate
    ]
    return min((spread for spread in spreads if spread > 0), default=outcome_scale) / 2


def shaped_budgets(rules: Sequence[Rule], cap: float) -> Mapping[str, float]:
    """Rule name → limit of a shaped rule's absolute rewards in one attempt. All limits sum to at most `cap`.

    Limits are fixed in advance. If they depended on the attempt, later actions would change the rewards of earlier
    ones, and it would not be potential-based shaping. Rules without a cap get equal shares.
    """
    intermediate = [rule for rule in rules if rule.intermediate]
    shaped_rules = [rule for rule in intermediate if shaping_of(rule)]
    wanted = {rule.name: cap / len(intermediate) if rule.cap is None else rule.cap for rule in shaped_rules}
    factor = min(1.0, cap / total) if (total := math.fsum(wanted.values())) > 0 else 1.0
    return {name: budget * factor for name, budget in wanted.items()}


def shaping_of(rule: Rule) -> Shaping | None:
    """The rule's shaping settings, or None."""
    return rule.shaping if isinstance(rule, IntermediateRule) else None


def weighed(rule: Rule, view: RolloutView, budget: float | None) -> list[Weighed]:
    """The rule's signals with their weights, limited by its cap, or shaped within `budget` if the rule has shaping.

    Raises what the rule raises, and ValueError for a signal that is not finite or two with the same name and evidence.
    """
    found: dict[tuple[str, str], Weighed] = {}
    signals = rule.signals(view)
    if (shaping := shaping_of(rule)) is not None and rule.weight != 0:
        room = math.inf if budget is None else budget / abs(rule.weight)
        signals = shaped(list(signals), view, shaping.gamma, room)
    for signal in signals:
        if not in_reward_range(signal.value, rule.weight):
            name = signal.name or rule.name
            raise ValueError(f"{name} is {signal.value}, not a finite number of at most {MAX_REWARD:g}")
        key = (signal.name or rule.name, signal.evidence.id)
        if key in found:
            raise ValueError(f"two signals {key[0]} for {key[1]}")
        found[key] = Weighed(rule, signal, rule.weight)
    return capped(list(found.values()), None if shaping else rule.cap)


def intermediate_capped(items: Sequence[Weighed], cap: float) -> list[Weighed]:
    """All `items` in order, with the intermediate ones limited to `cap` together. Shaped ones already have their
    limits; the weights of the others are scaled by one factor to fit into the rest.
    """
    free = [item for item in items if item.rule.intermediate and not shaping_of(item.rule)]
    used = math.fsum(abs(item.contribution) for item in items if shaping_of(item.rule))
    scaled = iter(capped(free, max(0.0, cap - used)))
    return [next(scaled) if item.rule.intermediate and not shaping_of(item.rule) else item for item in items]


def capped(items: Sequence[Weighed], cap: float | None) -> list[Weighed]:
    """Scale the weights by one factor so that absolute contributions sum to at most `cap`. Values are not changed."""
    largest = max((abs(item.contribution) for item in items), default=0.0)
    if cap is None or largest == 0:
        return list(items)
    in_largest = math.fsum(abs(item.contribution) / largest for item in items)
    factor = cap / largest / in_largest
    return list(items) if factor >= 1 else [replace(item, weight=item.weight * factor) for item in items]


def totals(items: Sequence[Weighed]) -> list[RuleTotal]:
    """One total per rule that gave signals, in the order of the rules."""
    by_rule: dict[str, list[Weighed]] = {}
    for item in items:
        by_rule.setdefault(item.rule.name, []).append(item)
    return [
        RuleTotal(
            rule=name,
            intermediate=mine[0].rule.intermediate,
            signals=len(mine),
            contribution=math.fsum(item.contribution for item in mine),
            capped=any(item.weight != item.rule.weight for item in mine),
        )
        for name, mine in by_rule.items()
    ]
