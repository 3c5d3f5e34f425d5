"""The outcome for every action, and each intermediate reward for the action alone that earned it."""

from collections.abc import Sequence
from typing import Literal

from leyden.credit.core.advantage import Advantage
from leyden.credit.core.strategies.base import Episode, StepCredit, Strategy, with_advantages


class StepRewards(Strategy):
    """G_t = the outcome + the action's own reward.

    Both parts share one baseline and one scale, so that a small intermediate reward stays small beside the outcome.
    With a baseline that only subtracts, the advantage is that of the outcome plus that of the own rewards.
    """

    name: Literal["step"] = "step"

    def assign_credit(self, episodes_G: Sequence[Episode], estimator: Advantage) -> list[list[StepCredit]]:
        """Outcome plus own reward, compared with the group's mean of the same."""
        return with_advantages(
            [[episode.outcome + step.own for step in episode.steps] for episode in episodes_G], estimator
        )
