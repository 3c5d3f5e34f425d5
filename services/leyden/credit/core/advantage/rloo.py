"""RLOO (arXiv 2402.14740): each rollout against the mean of the others, a baseline that does not depend on itself."""

import math

from leyden.credit.core.advantage.stats import Ragged, step_mean


def rloo(values_GT: Ragged) -> list[list[float]]:
    """Value - mean over the other rollouts of their step means, for each step of at least two rollouts."""
    means_G = [step_mean(values_T) for values_T in values_GT]
    total, others = math.fsum(means_G), len(means_G) - 1
    baselines_G = [(total - own) / others for own in means_G]
    return [[value - baseline for value in values_T] for values_T, baseline in zip(values_GT, baselines_G, strict=True)]
