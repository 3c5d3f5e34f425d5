"""Every action gets the whole return of its rollout, intermediate rewards too (Agent Lightning, arXiv 2508.03680)."""

from collections.abc import Sequence
from typing import Literal

from leyden.credit.core.advantage import Advantage
from leyden.credit.core.strategies.base import Episode, StepCredit, Strategy, with_advantages


class Identical(Strategy):
    """G_t = the rollout's total."""

    name: Literal["identical"] = "identical"

    @property
    def shaping_gamma(self) -> float | None:
        """The plain sum of a whole rollout's shaped rewards is 0 with gamma 1 alone."""
        return 1.0

    def assign_credit(self, episodes_G: Sequence[Episode], estimator: Advantage) -> list[list[StepCredit]]:
        """Return and advantage are the same in all steps of a rollout."""
        return with_advantages([[episode.total] * len(episode.steps) for episode in episodes_G], estimator)
