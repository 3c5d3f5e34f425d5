"""Generalised advantage estimation (arXiv 1506.02438) over the turns of a rollout, each action a time step.

The values are its baseline, so the run's `advantage` is not used; scale is left to the trainer's whitening.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import ConfigDict, Field

from leyden.credit.core.advantage import Advantage
from leyden.credit.core.advantage.stats import FLAT_TOLERANCE, mean, step_mean
from leyden.credit.core.strategies.base import Episode, StepCredit, Strategy, returns_to_go


class Gae(Strategy):
    """A_t = d_t + gamma lambda A_t+1, where d_t = r_t + gamma V_t+1 - V_t, and V is 0 after the last action."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: Literal["gae"] = "gae"
    gamma: float = Field(default=1.0, ge=0, le=1)
    """Discount from one action to the next."""
    lambda_: float = Field(default=0.95, ge=0, le=1, alias="lambda")
    """1: returns to go against values. 0: one action ahead, as the values see it."""
    values: Literal["recorded", "group_state"] = "group_state"
    """`recorded`: from a critic, as zero-weight rewards named `value` on the calls. `group_state`: from the group."""

    @property
    def shaping_gamma(self) -> float | None:
        """Its own discount."""
        return self.gamma

    def assign_credit(self, episodes_G: Sequence[Episode], estimator: Advantage) -> list[list[StepCredit]]:
        """Advantages, values, and their sums as returns. Alone in its group, a rollout is compared with nothing: 0."""
        if self.values == "recorded":
            return _without_rounding([self._against(episode, _recorded(episode)) for episode in episodes_G])
        returns_GT = [returns_to_go(episode, self.gamma) for episode in episodes_G]
        if len(returns_GT) < 2:
            return [[StepCredit(return_, 0.0) for return_ in returns_T] for returns_T in returns_GT]
        values_GT = group_state_values(episodes_G, returns_GT)
        pairs = zip(episodes_G, values_GT, strict=True)
        return _without_rounding([self._against(episode, values_T) for episode, values_T in pairs])

    def missing(self, episode: Episode) -> str | None:
        """How many of its steps came without a value, when those are to be recorded ones."""
        without = sum(step.value is None for step in episode.steps)
        if self.values == "group_state" or not without:
            return None
        return f"{without} of {len(episode.steps)} calls without a recorded value"

    def _against(self, episode: Episode, values_T: Sequence[float]) -> list[StepCredit]:
        found: list[StepCredit] = []
        advantage = following = 0.0
        for step, value in zip(reversed(episode.steps), reversed(values_T), strict=True):
            advantage = step.reward + self.gamma * following - value + self.gamma * self.lambda_ * advantage
            following = value
            found.append(StepCredit(advantage + value, advantage, value))
        return found[::-1]


def _recorded(episode: Episode) -> list[float]:
    values_T = [step.value for step in episode.steps if step.value is not None]
    assert len(values_T) == len(episode.steps), "a rollout without all its values is left out"
    return values_T


def _without_rounding(credited_GT: list[list[StepCredit]]) -> list[list[StepCredit]]:
    """The same, with advantage 0 everywhere when rounding is all that the returns differ from the values by."""
    steps = [step for credited_T in credited_GT for step in credited_T]
    largest = max(1.0, *(abs(step.return_) for step in steps))
    if any(abs(step.advantage) > FLAT_TOLERANCE * largest for step in steps):
        return credited_GT
    return [[replace(step, advantage=0.0) for step in credited_T] for credited_T in credited_GT]


def group_state_values(episodes_G: Sequence[Episode], returns_GT: Sequence[Sequence[float]]) -> list[list[float]]:
    """For each step what the OTHER rollouts got from its state on, each of them counted once.

    Where no other rollout was in that state: what they got from the step of the same number on; where none of them has
    so many steps: 0.
    """
    by_state = _others(episodes_G, returns_GT, lambda episode, t: episode.steps[t].state)
    by_number = _others(episodes_G, returns_GT, lambda _, t: t)
    return [
        [_first_known(state, number) for state, number in zip(of_states_T, of_numbers_T, strict=True)]
        for of_states_T, of_numbers_T in zip(by_state, by_number, strict=True)
    ]


def _first_known(state: float | None, number: float | None) -> float:
    if state is not None:
        return state
    return number if number is not None else 0.0


def _others(
    episodes_G: Sequence[Episode],
    returns_GT: Sequence[Sequence[float]],
    key: Callable[[Episode, int], str | int],
) -> list[list[float | None]]:
    """For each step the mean over the other rollouts that have its key of their mean return there; None without any."""
    visits: dict[str | int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for g, returns_T in enumerate(returns_GT):
        for t, return_ in enumerate(returns_T):
            visits[key(episodes_G[g], t)][g].append(return_)
    means = {at: {g: step_mean(found) for g, found in by_rollout.items()} for at, by_rollout in visits.items()}

    def without(at: str | int, own: int) -> float | None:
        others = [value for g, value in means[at].items() if g != own]
        return mean(others) if others else None

    return [
        [without(key(episodes_G[g], t), g) for t in range(len(returns_T))] for g, returns_T in enumerate(returns_GT)
    ]
