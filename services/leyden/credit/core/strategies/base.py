"""What a credit strategy is given and what it gives."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Episode:
    """A rollout as its rewards: one immediate reward per action, in order, and the sum of all that was given."""

    rewards: tuple[float, ...]
    total: float


Strategy = Callable[[Episode], tuple[float, ...]]
"""From an episode of T actions to T returns."""
