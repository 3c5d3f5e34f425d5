"""The API for writing rules of Automatic Intermediate Rewarding (AIR), and the lookup of rules by name.

A rule is a subclass of `IntermediateRule` with a method `observe(view)`; its fields are its parameters in the run file.
A package adds one with an entry point of group `leyden.air_rules`, whose name is used as `rule` in the run file.
"""

from leyden.events import Evidence
from leyden.extensions import Extensions, subclass_of
from leyden.reward.core.calls import CallView, ChoiceView
from leyden.reward.core.rules import AIR_RULES, IntermediateRule, Signal
from leyden.reward.core.view import RolloutView, TaskView

__all__ = [
    "CallView", "ChoiceView", "Evidence", "IntermediateRule", "RolloutView", "Signal", "TaskView", "air_rule",
]  # fmt: skip

_RULES = Extensions(
    "rule", "leyden.air_rules", AIR_RULES, subclass_of(IntermediateRule), "a subclass of IntermediateRule"
)


def air_rule(name: str) -> type[IntermediateRule]:
    """The class of rule `name`, built in or from a package. Raises ValueError if there is no usable one."""
    return _RULES.find(name)
