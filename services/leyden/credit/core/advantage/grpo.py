"""GRPO (arXiv 2402.03300): centred on the group's mean, divided by its standard deviation.

The deviation is the sample's (G - 1), as `torch.std` gives it in verl's `compute_grpo_outcome_advantage`, whose epsilon
of 1e-6 this is, and in TRL's GRPOTrainer.
"""

from collections.abc import Sequence

from leyden.credit.core.advantage.stats import mean, sample_std

EPSILON = 1e-6


def grpo(returns_G: Sequence[float]) -> list[float]:
    """(return - mean) / (std + 1e-6) for each member."""
    centre, spread = mean(returns_G), sample_std(returns_G)
    return [(value - centre) / (spread + EPSILON) for value in returns_G]
