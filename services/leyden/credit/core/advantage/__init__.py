"""Advantages by name. The members G of a group are ROLLOUTS: a long one weighs no more than a short one."""

from collections.abc import Mapping

from leyden.credit.core.advantage.dr_grpo import dr_grpo
from leyden.credit.core.advantage.grpo import grpo
from leyden.credit.core.advantage.rloo import rloo
from leyden.credit.core.advantage.stats import Advantage

ADVANTAGES: Mapping[str, Advantage] = {"grpo": grpo, "dr_grpo": dr_grpo, "rloo": rloo}

__all__ = ["ADVANTAGES", "Advantage"]
