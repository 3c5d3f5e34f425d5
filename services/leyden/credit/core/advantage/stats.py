"""Mean, spread and baseline of a group, in exactly rounded sums: the same numbers on every machine, in any order."""

import math
from collections.abc import Callable, Sequence

Advantage = Callable[[Sequence[float]], list[float]]
"""From the returns of G members, which are at least two and differ, to their G advantages."""
FLAT_TOLERANCE = 1e-9
"""Spread, relative to the largest return, below which returns differ by rounding only."""


def mean(values_G: Sequence[float]) -> float:
    """The arithmetic mean; 0 for no values."""
    return math.fsum(values_G) / len(values_G) if values_G else 0.0


def sample_std(values_G: Sequence[float]) -> float:
    """The standard deviation with G - 1 below, as `torch.std` has it by default; 0 for fewer than two values."""
    if len(values_G) < 2:
        return 0.0
    centre = mean(values_G)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values_G) / (len(values_G) - 1))


def is_flat(values_G: Sequence[float]) -> bool:
    """Whether there is nothing to compare: fewer than two values, or all the same."""
    if len(values_G) < 2:
        return True
    largest = max(1.0, *(abs(value) for value in values_G))
    return max(values_G) - min(values_G) <= FLAT_TOLERANCE * largest
