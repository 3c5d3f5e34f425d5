"""What signals weigh: values times weights, and the caps that keep means from outweighing the end."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from leyden.events.base import MAX_REWARD
from leyden.reward.core.rules.base import IntermediateRule, Rule, Shaping, Signal
from leyden.reward.core.shaping import shaped
from leyden.reward.core.view import RolloutView


@dataclass(frozen=True)
class Weighed:
    """A signal with the weight that it has in the end."""

    rule: Rule
    signal: Signal
    weight: float

    @property
    def contribution(self) -> float:
        """What it adds to the return."""
        return self.signal.value * self.weight


@dataclass(frozen=True)
class RuleTotal:
    """One rule in one attempt, for statistics."""

    rule: str
    intermediate: bool
    signals: int
    contribution: float
    capped: bool
    """Whether a cap, its own or that of all AIR rules, made it weigh less."""


def default_cap(rules: Iterable[Rule], outcome_scale: float) -> float:
    """Half of what a good outcome adds to a bad one: then no intermediate rewards turn the order of the two round.

    Two attempts' intermediate sums differ by at most twice the cap. Of several rules for the outcome the one that
    weighs least counts, so that none is outweighed; rules of weight 0 only watch.
    """
    spreads = [
        min(outcome_scale * abs(rule.weight), math.inf if rule.cap is None else rule.cap)
        for rule in rules
        if not rule.intermediate
    ]
    return min((spread for spread in spreads if spread > 0), default=outcome_scale) / 2


def shaped_budgets(rules: Sequence[Rule], cap: float) -> Mapping[str, float]:
    """Rule name → the most that a shaped rule's rewards of one attempt may add up to, absolutely; at most `cap` in all.

    Fixed before any attempt is seen: a bound that depended on how the attempt went on would let later actions change
    what earlier ones earned, and the potential would be none. A rule without a cap has an equal share.
    """
    intermediate = [rule for rule in rules if rule.intermediate]
    shaped_rules = [rule for rule in intermediate if shaping_of(rule)]
    wanted = {rule.name: cap / len(intermediate) if rule.cap is None else rule.cap for rule in shaped_rules}
    factor = min(1.0, cap / total) if (total := math.fsum(wanted.values())) > 0 else 1.0
    return {name: budget * factor for name, budget in wanted.items()}


def shaping_of(rule: Rule) -> Shaping | None:
    """How the rule is shaped, if it is."""
    return rule.shaping if isinstance(rule, IntermediateRule) else None


def weighed(rule: Rule, view: RolloutView, budget: float | None) -> list[Weighed]:
    """The rule's signals, under its own cap; shaped within `budget` when the rule is.

    Raises whatever the rule raises, and ValueError for signals that are no numbers or not told apart.
    """
    found: dict[tuple[str, str], Weighed] = {}
    signals = rule.signals(view)
    if (shaping := shaping_of(rule)) is not None and rule.weight != 0:
        room = math.inf if budget is None else budget / abs(rule.weight)
        signals = shaped(list(signals), view, shaping.gamma, room)
    for signal in signals:
        if not (abs(signal.value) <= MAX_REWARD and abs(signal.value * rule.weight) <= MAX_REWARD):
            name = signal.name or rule.name
            raise ValueError(f"{name} is {signal.value}, not a finite number of at most {MAX_REWARD:g}")
        key = (signal.name or rule.name, signal.evidence.id)
        if key in found:
            raise ValueError(f"two signals {key[0]} for {key[1]}")
        found[key] = Weighed(rule, signal, rule.weight)
    return capped(list(found.values()), None if shaping else rule.cap)


def intermediate_capped(items: Sequence[Weighed], cap: float) -> list[Weighed]:
    """All of `items` in order, the intermediate ones together at most `cap`: shaped ones have their budgets already,
    the others are scaled alike to what those leave.
    """
    free = [item for item in items if item.rule.intermediate and not shaping_of(item.rule)]
    used = math.fsum(abs(item.contribution) for item in items if shaping_of(item.rule))
    scaled = iter(capped(free, max(0.0, cap - used)))
    return [next(scaled) if item.rule.intermediate and not shaping_of(item.rule) else item for item in items]


def capped(items: Sequence[Weighed], cap: float | None) -> list[Weighed]:
    """Weights scaled alike so that the absolute contributions sum to at most `cap`; values stay what was seen."""
    largest = max((abs(item.contribution) for item in items), default=0.0)
    if cap is None or largest == 0:
        return list(items)
    in_largest = math.fsum(abs(item.contribution) / largest for item in items)
    factor = cap / largest / in_largest
    return list(items) if factor >= 1 else [replace(item, weight=item.weight * factor) for item in items]


def totals(items: Sequence[Weighed]) -> list[RuleTotal]:
    """One line per rule that gave signals, in the rules' order."""
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
