"""Compares two sets of transitions: what is the same, how advantages changed, where their sign flipped. Pure.

Transitions are matched by policy, rollout, attempt, call and choice, not by event id, which differs between credit
services.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from leyden.events import SequenceCredited

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class Key(NamedTuple):
    """Identifies an action."""

    policy: str
    rollout_id: str
    attempt: int
    call_id: str
    choice: int


class Credit(NamedTuple):
    """Credit of an action."""

    group_id: str
    reward: float
    return_: float
    advantage: float
    value: float | None
    start: int
    end: int


@dataclass
class Side:
    """One set of transitions; about 400 bytes each."""

    credits: dict[Key, Credit] = field(default_factory=dict)
    groups: set[tuple[str, str]] = field(default_factory=set)
    """(policy, group) pairs that are complete on this side."""

    def add(self, policy: str, group_id: str, sequences: Iterable[SequenceCredited]) -> None:
        """Add a complete group."""
        self.groups.add((policy, group_id))
        for sequence in sequences:
            for t in sequence.transitions:
                key = Key(policy, sequence.rollout_id, sequence.attempt, t.call_id, t.choice)
                self.credits[key] = Credit(
                    group_id=group_id,
                    reward=t.reward,
                    return_=t.return_,
                    advantage=t.advantage,
                    value=t.value,
                    start=t.start,
                    end=t.end,
                )


@dataclass(frozen=True, kw_only=True)
class GroupFlips:
    """Transitions of one group whose advantage has another sign on the other side."""

    policy: str
    group_id: str
    compared: int
    flipped: int
    """From positive to negative, or the reverse."""
    zeroed: int
    """To or from 0."""


@dataclass(frozen=True, kw_only=True)
class RolloutChange:
    """Change of the advantages of one rollout."""

    rollout_id: str
    attempt: int
    group_id: str
    transitions: int
    mean_change: float
    largest_change: float


@dataclass(frozen=True)
class Difference:
    """The comparison, over the groups that both sides have."""

    groups: int
    groups_only_a: int
    groups_only_b: int
    same: int
    changed: int
    only_a: int
    only_b: int
    quantiles: Mapping[float, float]
    """Of advantage B − advantage A, over the transitions on both sides; empty if there are none."""
    mean: float
    sd: float
    correlation: float | None
    """Pearson correlation of the advantages; None if one side is constant."""
    flips: Sequence[GroupFlips]
    """Groups with flips, most flips first."""
    top: Sequence[RolloutChange]
    """Rollouts whose advantages changed most, by the largest change."""


def difference(a: Side, b: Side, top: int = 10) -> Difference:
    """Compare B with A; both lists are at most `top` long."""
    common = a.groups & b.groups
    of_a, of_b = _within(a, common), _within(b, common)
    both = sorted(of_a.keys() & of_b.keys())
    same = sum(of_a[key] == of_b[key] for key in both)
    before_T = np.array([of_a[key].advantage for key in both], dtype=np.float64)
    after_T = np.array([of_b[key].advantage for key in both], dtype=np.float64)
    change_T = after_T - before_T
    return Difference(
        groups=len(common),
        groups_only_a=len(a.groups - common),
        groups_only_b=len(b.groups - common),
        same=same,
        changed=len(both) - same,
        only_a=len(of_a) - len(both),
        only_b=len(of_b) - len(both),
        quantiles={q: float(np.quantile(change_T, q)) for q in QUANTILES} if both else {},
        mean=float(change_T.mean()) if both else 0.0,
        sd=float(change_T.std()) if both else 0.0,
        correlation=_correlation(before_T.tolist(), after_T.tolist()),
        flips=_flips(both, of_a, of_b)[:top],
        top=_top(both, of_a, of_b)[:top],
    )


def _within(side: Side, groups: set[tuple[str, str]]) -> dict[Key, Credit]:
    return {key: credit for key, credit in side.credits.items() if (key.policy, credit.group_id) in groups}


def _correlation(before: Sequence[float], after: Sequence[float]) -> float | None:
    if len(before) < 2 or min(before) == max(before) or min(after) == max(after):
        return None
    return float(np.corrcoef(before, after)[0, 1])


def _flips(both: Iterable[Key], a: Mapping[Key, Credit], b: Mapping[Key, Credit]) -> list[GroupFlips]:
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for key in both:
        pairs.setdefault((key.policy, a[key].group_id), []).append((a[key].advantage, b[key].advantage))
    found = [
        GroupFlips(
            policy=policy,
            group_id=group_id,
            compared=len(moves),
            flipped=sum(x * y < 0 for x, y in moves),
            zeroed=sum((x == 0) != (y == 0) for x, y in moves),
        )
        for (policy, group_id), moves in pairs.items()
    ]
    return sorted((f for f in found if f.flipped or f.zeroed), key=lambda f: (-f.flipped, -f.zeroed, f.group_id))


def _top(both: Iterable[Key], a: Mapping[Key, Credit], b: Mapping[Key, Credit]) -> list[RolloutChange]:
    moves: dict[tuple[str, int, str], list[float]] = {}
    for key in both:
        name = (key.rollout_id, key.attempt, a[key].group_id)
        moves.setdefault(name, []).append(b[key].advantage - a[key].advantage)
    found = list(_moved(moves))
    return sorted(found, key=lambda c: (-abs(c.largest_change), c.rollout_id))


def _moved(moves: Mapping[tuple[str, int, str], Sequence[float]]) -> Iterator[RolloutChange]:
    for (rollout_id, attempt, group_id), changes in moves.items():
        if any(changes):
            mean = math.fsum(changes) / len(changes)
            yield RolloutChange(
                rollout_id=rollout_id,
                attempt=attempt,
                group_id=group_id,
                transitions=len(changes),
                mean_change=mean,
                largest_change=max(changes, key=abs),
            )
