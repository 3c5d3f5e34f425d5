"""REINFORCE++ (arXiv 2501.03262): no group at all; what stands for the baseline is the mean over the trainer's batch.

Only the first half is done here. The second is the trainer's: `whiten_advantages: true` in its section.
"""

from leyden.credit.core.advantage.stats import Ragged


def reinforce_plus_plus(values_GT: Ragged) -> list[list[float]]:
    """The values as they are."""
    return [list(values_T) for values_T in values_GT]
