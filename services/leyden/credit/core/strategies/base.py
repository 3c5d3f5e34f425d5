"""What a credit strategy is given and what it gives."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from leyden.credit.core.advantage import Advantage


@dataclass(frozen=True, slots=True)
class Step:
    """One action."""

    own: float
    """What the rules gave for this action alone."""
    reward: float
    """The same, and on the last step the episode's outcome as well: the rewards of an episode add up to its total."""
    state: str
    """Digest of the prompt's token ids: equal states are equal, in all rollouts."""
    value: float | None = None
    """An estimate of the state's value that came with the call, from a critic for instance."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A rollout as a strategy sees it: those of its actions that this strategy credits, in order, at least one."""

    steps: tuple[Step, ...]
    total: float
    """All rewards of the rollout."""
    outcome: float
    """The part of the total that no action of the episode earned for itself; it falls on the last step."""


@dataclass(frozen=True, slots=True)
class StepCredit:
    """What a step is worth."""

    return_: float
    advantage: float
    value: float | None = None
    """The baseline of this very step, where the strategy has one."""


class Strategy(BaseModel, ABC):
    """How the rewards of rollouts are shared among their actions; its fields are its parameters in the run file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str

    @abstractmethod
    def assign_credit(self, episodes_G: Sequence[Episode], estimator: Advantage) -> list[list[StepCredit]]:
        """The worth of each step of each of a group's G episodes, in their order.

        In every mean and spread a rollout weighs the same, however many steps it has.
        """

    def missing(self, episode: Episode) -> str | None:
        """What the strategy needs and `episode` lacks, so that its rollout must be left out; None when nothing."""
        return None

    def conflict(self, estimator: Advantage) -> str | None:
        """Why the strategy makes no sense with `baseline`; None when it does."""
        return None


def with_advantages(returns_GT: Sequence[Sequence[float]], estimator: Advantage) -> list[list[StepCredit]]:
    """Each return with the advantage that `baseline` gives it."""
    return [
        [StepCredit(return_, advantage) for return_, advantage in zip(returns_T, advantages_T, strict=True)]
        for returns_T, advantages_T in zip(returns_GT, estimator(returns_GT), strict=True)
    ]


def returns_to_go(episode: Episode, gamma: float) -> list[float]:
    """For each step the discounted sum of its reward and all later ones."""
    found: list[float] = []
    following = 0.0
    for step in reversed(episode.steps):
        following = step.reward + gamma * following
        found.append(following)
    return found[::-1]


def episode_of(
    own_T: Sequence[float],
    outcome: float,
    states_T: Sequence[str] | None = None,
    values_T: Sequence[float | None] | None = None,
) -> Episode:
    """The episode of steps that earned `own_T`, and an outcome; without states, steps of one number share theirs."""
    last = len(own_T) - 1
    steps = [
        Step(
            own=own,
            reward=own if number < last else math.fsum((own, outcome)),
            state=states_T[number] if states_T is not None else str(number),
            value=values_T[number] if values_T is not None else None,
        )
        for number, own in enumerate(own_T)
    ]
    return Episode(tuple(steps), math.fsum((*own_T, outcome)), outcome)
