"""GRPO (arXiv 2402.03300): centred on the group's mean, divided by its standard deviation.

The deviation is the sample's (G - 1), as `torch.std` gives it in verl's `compute_grpo_outcome_advantage`, whose epsilon
of 1e-6 this is, and in TRL's GRPOTrainer.
"""

from leyden.credit.core.advantage.stats import Ragged, centre, spread

EPSILON = 1e-6


def grpo(values_GT: Ragged) -> list[list[float]]:
    """(value - mean) / (std + 1e-6) for each step."""
    middle, scale = centre(values_GT), spread(values_GT) + EPSILON
    return [[(value - middle) / scale for value in values_T] for values_T in values_GT]
