"""Dr.GRPO (arXiv 2503.20783): centred on the mean only; dividing by the deviation favours very easy and hard tasks."""

from collections.abc import Sequence

from leyden.credit.core.advantage.stats import mean


def dr_grpo(returns_G: Sequence[float]) -> list[float]:
    """Return - mean for each member."""
    centre = mean(returns_G)
    return [value - centre for value in returns_G]
