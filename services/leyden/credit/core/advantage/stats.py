"""Mean, spread and flatness of a group, in exactly rounded sums: the same numbers on every machine, in any order.

The members G of a group are ROLLOUTS. A rollout of T steps brings T numbers and weighs as much as any other rollout:
the group's mean is the mean over rollouts of the mean over steps, and its variance likewise.
"""

import math
from collections.abc import Sequence

Ragged = Sequence[Sequence[float]]
"""One number per step of each of G rollouts, which may differ in length; no rollout is empty."""
FLAT_TOLERANCE = 1e-9
"""Spread, relative to the largest number, below which numbers differ by rounding only."""


def mean(values_G: Sequence[float]) -> float:
    """The arithmetic mean; 0 for no values."""
    return math.fsum(values_G) / len(values_G) if values_G else 0.0


def step_mean(values_T: Sequence[float]) -> float:
    """The mean over one rollout's steps; exactly their number when all are the same."""
    least = min(values_T)
    return least + math.fsum(value - least for value in values_T) / len(values_T)


def centre(values_GT: Ragged) -> float:
    """The mean over rollouts of their step means."""
    return mean([step_mean(values_T) for values_T in values_GT])


def spread(values_GT: Ragged) -> float:
    """The standard deviation around `centre` with G - 1 below, each rollout with the mean over its squares."""
    if len(values_GT) < 2:
        return 0.0
    middle = centre(values_GT)
    squares_G = [step_mean([(value - middle) ** 2 for value in values_T]) for values_T in values_GT]
    return math.sqrt(math.fsum(squares_G) / (len(values_GT) - 1))


def sample_std(values_G: Sequence[float]) -> float:
    """The standard deviation with G - 1 below, as `torch.std` has it by default; 0 for fewer than two values."""
    return spread([(value,) for value in values_G])


def is_flat(values_GT: Ragged) -> bool:
    """Whether there is nothing to compare: one rollout, all numbers the same, or the same series in every rollout."""
    if len(values_GT) < 2:
        return True
    flattened = [value for values_T in values_GT for value in values_T]
    tolerance = FLAT_TOLERANCE * max(1.0, *(abs(value) for value in flattened))
    if max(flattened) - min(flattened) <= tolerance:
        return True
    if len({len(values_T) for values_T in values_GT}) > 1:
        return False
    return all(max(values_G) - min(values_G) <= tolerance for values_G in zip(*values_GT, strict=True))
