"""Objectives by name: what a step maximises over the action tokens.

A package adds one with an entry point of the group `leyden.objectives`: a class under `Objective`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from leyden.extensions import Extensions, configured, subclass_of
from leyden.trainer.core.objectives.base import ActionTokens, Maximised, Objective
from leyden.trainer.core.objectives.cispo import Cispo
from leyden.trainer.core.objectives.clipped import Clipped
from leyden.trainer.core.objectives.gspo import Gspo
from leyden.trainer.core.objectives.reinforce import Reinforce
from leyden.trainer.core.objectives.sft import Sft

OBJECTIVES: Mapping[str, type[Objective]] = {
    "clipped": Clipped,
    "gspo": Gspo,
    "cispo": Cispo,
    "reinforce": Reinforce,
    "sft": Sft,
}
_KNOWN = Extensions("objective", "leyden.objectives", OBJECTIVES, subclass_of(Objective), "a class under Objective")


def objective_of(said: str | Mapping[str, Any] | Objective) -> Objective:
    """The objective that a run file means by a name, or by a name with parameters; raises ValueError for no such."""
    return configured(_KNOWN, said)


ObjectiveSetting = Annotated[SerializeAsAny[Objective], BeforeValidator(objective_of)]
"""A field that takes an objective as a run file says it."""

__all__ = [
    "OBJECTIVES",
    "ActionTokens",
    "Clipped",
    "Maximised",
    "Objective",
    "ObjectiveSetting",
    "objective_of",
]
