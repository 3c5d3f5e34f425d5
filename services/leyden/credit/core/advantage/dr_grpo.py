"""Dr.GRPO (arXiv 2503.20783): centred on the mean only; dividing by the deviation favours very easy and hard tasks."""

from leyden.credit.core.advantage.stats import Ragged, centre


def dr_grpo(values_GT: Ragged) -> list[list[float]]:
    """Value - mean for each step."""
    middle = centre(values_GT)
    return [[value - middle for value in values_T] for values_T in values_GT]
