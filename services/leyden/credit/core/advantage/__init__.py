"""Advantages by name. The members G of a group are ROLLOUTS: a long one weighs no more than a short one.

A package adds one with an entry point of the group `leyden.advantages`: an `Advantage`.
"""

from collections.abc import Mapping

from leyden.credit.core.advantage.base import Advantage
from leyden.credit.core.advantage.dr_grpo import dr_grpo
from leyden.credit.core.advantage.grpo import grpo
from leyden.credit.core.advantage.reinforce_plus_plus import reinforce_plus_plus
from leyden.credit.core.advantage.rloo import rloo
from leyden.extensions import Extensions

_BUILT_IN = (
    Advantage("grpo", grpo),
    Advantage("dr_grpo", dr_grpo),
    Advantage("rloo", rloo),
    Advantage("reinforce_plus_plus", reinforce_plus_plus, compares=False),
    # REINFORCE++ with a baseline subtracts the group's mean as well, and leaves the scale to the trainer's whitening.
    Advantage("reinforce_plus_plus_baseline", dr_grpo),
)
ADVANTAGES: Mapping[str, Advantage] = {advantage.name: advantage for advantage in _BUILT_IN}
_KNOWN = Extensions(
    "advantage", "leyden.advantages", ADVANTAGES, lambda found: isinstance(found, Advantage), "an Advantage"
)


def advantage_of(name: str) -> Advantage:
    """The advantage of that name, built in or brought by a package; raises ValueError when there is no usable one."""
    return _KNOWN.find(name)


__all__ = ["ADVANTAGES", "Advantage", "advantage_of"]
