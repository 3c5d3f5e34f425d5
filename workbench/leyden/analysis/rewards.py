"""Statistics per reward rule, by policy version or by windows of rollouts in order of their ends. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

MIN_WINDOW = 16
"""Fewest rollouts in a window of the default size."""
DEFAULT_WINDOWS = 10
TRAIN, VALIDATION = "train", "validation"
"""Modes of rollouts."""


@dataclass(frozen=True)
class JudgedRollout:
    """One attempt with all its rewards."""

    ended_at: datetime
    rollout_id: str
    version: str
    """`policy@version` that acted, the newest of several; `-` if it is not known."""
    gives: Mapping[str, Sequence[float]]
    """Rule → value × weight of each of its rewards."""
    mode: str = TRAIN

    @property
    def reward(self) -> float:
        """The sum of its rewards."""
        return math.fsum(value for values in self.gives.values() for value in values)


@dataclass(frozen=True)
class HeldOutPoint:
    """The validation rollouts that one version answered."""

    version: str
    rollouts: int
    mean: float
    sd: float
    """Sample standard deviation; 0 for fewer than two."""


@dataclass(frozen=True)
class RuleStatistics:
    """Statistics of one rule over some rollouts, of contributions: value × weight."""

    count: int
    mean: float
    sd: float
    """Sample standard deviation; 0 for fewer than two."""
    min: float
    max: float
    per_rollout: float
    """Mean contribution per rollout; a rollout without one counts as 0."""
    share: float
    """Its share of all absolute contributions, 0 to 1."""


@dataclass(frozen=True)
class Window:
    """Some rollouts with the statistics of each rule."""

    name: str
    rollouts: int
    rules: Mapping[str, RuleStatistics]


def windows_of(judged: Iterable[JudgedRollout], size: int | None = None) -> list[list[JudgedRollout]]:
    """Rollouts in order of their ends, `size` per window; a last window under half full is joined to the one before."""
    ordered = sorted(judged, key=lambda one: (one.ended_at, one.rollout_id))
    size = size or max(MIN_WINDOW, math.ceil(len(ordered) / DEFAULT_WINDOWS))
    lots = [ordered[at : at + size] for at in range(0, len(ordered), size)]
    if len(lots) > 1 and len(lots[-1]) * 2 < size:
        rest = lots.pop()
        lots[-1] += rest
    return lots


def versions_of(judged: Iterable[JudgedRollout]) -> list[list[JudgedRollout]]:
    """Rollouts by the version that acted, oldest version first."""
    lots: dict[str, list[JudgedRollout]] = {}
    for one in judged:
        lots.setdefault(one.version, []).append(one)
    return [lots[version] for version in sorted(lots, key=version_key)]


def held_out_curve(judged: Iterable[JudgedRollout]) -> list[HeldOutPoint]:
    """Mean reward of validation rollouts by the version that answered, oldest version first."""
    lots = versions_of(one for one in judged if one.mode == VALIDATION)
    rewards = [(lot[0].version, [one.reward for one in lot]) for lot in lots]
    return [HeldOutPoint(name, len(all_), math.fsum(all_) / len(all_), sample_sd(all_)) for name, all_ in rewards]


def version_key(version: str) -> tuple[str, int]:
    policy, _, number = version.rpartition("@")
    return (policy, int(number)) if number.isdigit() else (version, -1)


def statistics(name: str, rollouts: Sequence[JudgedRollout]) -> Window:
    """The statistics of each rule over `rollouts`."""
    given: dict[str, list[float]] = {}
    for one in rollouts:
        for rule, values in one.gives.items():
            given.setdefault(rule, []).extend(values)
    weight = math.fsum(abs(value) for values in given.values() for value in values)
    return Window(
        name=name,
        rollouts=len(rollouts),
        rules={rule: _of_rule(values, len(rollouts), weight) for rule, values in sorted(given.items()) if values},
    )


def _of_rule(values: Sequence[float], rollouts: int, weight: float) -> RuleStatistics:
    mean = math.fsum(values) / len(values)
    return RuleStatistics(
        count=len(values),
        mean=mean,
        sd=sample_sd(values),
        min=min(values),
        max=max(values),
        per_rollout=math.fsum(values) / rollouts,
        share=math.fsum(map(abs, values)) / weight if weight else 0.0,
    )


def sample_sd(values: Sequence[float]) -> float:
    """Standard deviation of a sample; 0 for fewer than two."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
