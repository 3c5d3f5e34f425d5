"""The interface of credit strategies: episodes in, credit per step out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from leyden.credit.core.advantage import Advantage


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the policy. Its sampled choices are alternatives, and share its credit."""

    own: float
    """Rewards that name this call."""
    reward: float
    """`own`, plus the outcome on the last step: the rewards of an episode add up to its total."""
    state: str
    """Digest of the prompt's token ids; the same in all rollouts."""
    value: float | None = None
    """A recorded estimate of the state's value, such as a critic's."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A rollout as a strategy sees it: the calls that it credits, in order; at least one."""

    steps: tuple[Step, ...]
    total: float
    """All rewards of the rollout."""
    outcome: float
    """Rewards that name no call of the episode; they go to the last step."""


@dataclass(frozen=True, slots=True)
class StepCredit:
    """Return and advantage of a step."""

    return_: float
    advantage: float
    value: float | None = None
    """Baseline of this step, if the strategy has one."""


class Strategy(BaseModel, ABC):
    """How the rewards of rollouts are shared among their actions; its fields are its parameters in the run file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str

    @abstractmethod
    def assign_credit(self, episodes_G: Sequence[Episode], estimator: Advantage) -> list[list[StepCredit]]:
        """The credit of each step of a group's G episodes, in their order.

        In means and deviations every rollout must weigh the same, however many steps it has.
        """

    @property
    def shaping_gamma(self) -> float | None:
        """The discount with which potential-based shaping adds nothing to what its returns teach; None for no discount.

        With returns to go it is their discount: the shaped rewards from a step on sum to -Phi of its state, whatever
        the actions.
        """
        return None

    def missing(self, episode: Episode) -> str | None:
        """What the strategy needs and `episode` lacks, so that its rollout is left out; None if nothing."""
        return None

    def conflict(self, estimator: Advantage) -> str | None:
        """Why the strategy cannot be used with `estimator`; None if it can."""
        return None


def with_advantages(returns_GT: Sequence[Sequence[float]], estimator: Advantage) -> list[list[StepCredit]]:
    """Each return with its advantage by `estimator`."""
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
