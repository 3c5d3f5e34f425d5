"""A group's steps with what they are worth: each strategy over the rollouts that have actions for it to credit."""

from collections.abc import Sequence

from leyden.credit.core.advantage import Advantage
from leyden.credit.core.member import Trajectory
from leyden.credit.core.strategies import Credited, Episode, Strategy

Worth = list[list[Credited]]
"""Of each part of a trajectory, of each step of its episode."""


def worth_of(trajectories_G: Sequence[Trajectory], baseline: Advantage) -> list[Worth]:
    """The worth of the steps of each of a group's G trajectories of one policy."""
    episodes: dict[Strategy, dict[tuple[int, int], Episode]] = {}
    for g, trajectory in enumerate(trajectories_G):
        for number, part in enumerate(trajectory.parts):
            episodes.setdefault(part.strategy, {})[g, number] = part.episode
    credited: dict[tuple[int, int], list[Credited]] = {}
    for strategy, mine in episodes.items():
        credited |= zip(mine, strategy.credit(list(mine.values()), baseline), strict=True)
    return [
        [credited[g, number] for number in range(len(trajectory.parts))] for g, trajectory in enumerate(trajectories_G)
    ]


def tells_nothing(worth_G: Sequence[Worth], baseline: Advantage) -> bool:
    """Whether the group's rollouts were compared and no step came out better or worse than another."""
    return baseline.compares and not any(step.advantage for worth in worth_G for steps in worth for step in steps)
