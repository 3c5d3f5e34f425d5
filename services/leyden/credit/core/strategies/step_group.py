"""GiGPO (arXiv 2505.10978): how the rollout did among all, and how the action did among those taken in the same state.

As in the authors' `core_gigpo.py`, with these differences: every rollout weighs the same in a state's group, however
often it comes back to the state (there each visit does); a state that one rollout alone visits has step advantage 0
(there two visits of one rollout are compared); so has a group of one rollout (there its advantage is its plain return).
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from leyden.credit.core.advantage import Advantage
from leyden.credit.core.strategies.base import Episode, StepCredit, Strategy, returns_to_go


class StepGroup(Strategy):
    """A_t = A(total among all rollouts) + step_weight * A(return to go among equal states).

    The run's `advantage` makes both: `grpo` is the paper's mean-and-deviation form, `dr_grpo` its mean-only one.
    """

    name: Literal["step_group"] = "step_group"
    gamma: float = Field(default=0.95, ge=0, le=1)
    """Discount of the returns to go that are compared among equal states."""
    step_weight: float = Field(default=1.0, ge=0)
    """Weight of the step's advantage beside the rollout's."""

    @property
    def shaping_gamma(self) -> float | None:
        """Totals need gamma 1, returns to go their own discount."""
        return self.gamma if self.gamma == 1.0 else None

    def assign_credit(self, episodes_G: Sequence[Episode], estimator: Advantage) -> list[list[StepCredit]]:
        """The sum of both advantages; the return is the return to go."""
        rollouts_G = [advantage for (advantage,) in estimator([(episode.total,) for episode in episodes_G])]
        returns_GT = [returns_to_go(episode, self.gamma) for episode in episodes_G]
        steps_GT = among_equal_states(episodes_G, returns_GT, estimator)
        return [
            [
                StepCredit(return_, rollout + self.step_weight * step)
                for return_, step in zip(returns_T, steps_T, strict=True)
            ]
            for rollout, returns_T, steps_T in zip(rollouts_G, returns_GT, steps_GT, strict=True)
        ]

    def conflict(self, estimator: Advantage) -> str | None:
        """It needs an advantage that compares rollouts."""
        return (
            None if estimator.compares else f"step_group compares rollouts with each other, {estimator.name} does not"
        )


def among_equal_states(
    episodes_G: Sequence[Episode], returns_GT: Sequence[Sequence[float]], estimator: Advantage
) -> list[list[float]]:
    """The advantage of each step's return among the steps of all rollouts in the same state."""
    visits: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for g, episode in enumerate(episodes_G):
        for t, step in enumerate(episode.steps):
            visits[step.state][g].append(t)
    found = [[0.0] * len(returns_T) for returns_T in returns_GT]
    for by_rollout in visits.values():
        advantages = estimator([[returns_GT[g][t] for t in visited] for g, visited in by_rollout.items()])
        for (g, visited), advantages_T in zip(by_rollout.items(), advantages, strict=True):
            for t, advantage in zip(visited, advantages_T, strict=True):
                found[g][t] = advantage
    return found
