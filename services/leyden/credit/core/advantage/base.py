"""What an advantage is: a formula over the numbers of a group's rollouts, and whether it compares them."""

from collections.abc import Callable
from dataclasses import dataclass

from leyden.credit.core.advantage.stats import Ragged, is_flat

Formula = Callable[[Ragged], list[list[float]]]
"""From the numbers of at least one rollout to as many advantages, in the same shape."""


@dataclass(frozen=True)
class Advantage:
    """A formula under its name in the run file."""

    name: str
    formula: Formula
    compares: bool = True
    """Whether it measures rollouts against each other: then a group without differences gives 0 everywhere."""

    def __call__(self, values_GT: Ragged) -> list[list[float]]:
        """The advantage of each step of each rollout."""
        if self.compares and is_flat(values_GT):
            return [[0.0] * len(values_T) for values_T in values_GT]
        return self.formula(values_GT)
