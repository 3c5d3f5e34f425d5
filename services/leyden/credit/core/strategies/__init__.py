"""Credit strategies by name: how much of a rollout's rewards each of its actions earned."""

from collections.abc import Mapping

from leyden.credit.core.strategies.base import Episode, Strategy
from leyden.credit.core.strategies.identical import identical

STRATEGIES: Mapping[str, Strategy] = {"identical": identical}

__all__ = ["STRATEGIES", "Episode", "Strategy"]
