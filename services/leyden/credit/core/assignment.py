"""Credits the steps of a group: each strategy is applied to the rollouts that have actions for it."""

from collections.abc import Sequence

from leyden.credit.core.advantage import Advantage
from leyden.credit.core.member import Trajectory
from leyden.credit.core.strategies import Episode, StepCredit, Strategy

TrajectoryCredit = list[list[StepCredit]]
"""For each part of a trajectory, the credit of each step of its episode."""


def credit_trajectories(trajectories_G: Sequence[Trajectory], estimator: Advantage) -> list[TrajectoryCredit]:
    """The credit of each step of a group's G trajectories of one policy."""
    episodes: dict[Strategy, dict[tuple[int, int], Episode]] = {}
    for g, trajectory in enumerate(trajectories_G):
        for number, part in enumerate(trajectory.parts):
            episodes.setdefault(part.strategy, {})[g, number] = part.episode
    credited: dict[tuple[int, int], list[StepCredit]] = {}
    for strategy, mine in episodes.items():
        credited |= zip(mine, strategy.assign_credit(list(mine.values()), estimator), strict=True)
    return [
        [credited[g, number] for number in range(len(trajectory.parts))] for g, trajectory in enumerate(trajectories_G)
    ]


def is_zero_variance(credits_G: Sequence[TrajectoryCredit], estimator: Advantage) -> bool:
    """Whether rollouts were compared and every advantage is 0."""
    return estimator.compares and not any(step.advantage for parts in credits_G for steps in parts for step in steps)
