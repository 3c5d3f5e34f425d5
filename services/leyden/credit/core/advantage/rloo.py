"""RLOO (arXiv 2402.14740): each member against the mean of the others, a baseline that does not depend on itself."""

import math
from collections.abc import Sequence


def rloo(returns_G: Sequence[float]) -> list[float]:
    """Return - mean of the other members' returns, for each of at least two members."""
    total = math.fsum(returns_G)
    return [value - (total - value) / (len(returns_G) - 1) for value in returns_G]
