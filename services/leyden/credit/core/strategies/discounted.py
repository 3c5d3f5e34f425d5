"""Each action gets what came after it, and less of it the later it came."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from leyden.credit.core.advantage import Advantage
from leyden.credit.core.strategies.base import Episode, StepCredit, Strategy, returns_to_go, with_advantages


class Discounted(Strategy):
    """G_t = r_t + gamma r_t+1 + gamma² r_t+2 + …"""

    name: Literal["discounted"] = "discounted"
    gamma: float = Field(default=0.95, ge=0, le=1)
    """What a reward is worth one action earlier."""

    @property
    def shaping_gamma(self) -> float | None:
        """Its own discount."""
        return self.gamma

    def assign_credit(self, episodes_G: Sequence[Episode], estimator: Advantage) -> list[list[StepCredit]]:
        """Returns to go, all compared with one baseline of the group."""
        return with_advantages([returns_to_go(episode, self.gamma) for episode in episodes_G], estimator)
