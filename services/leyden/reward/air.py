"""What is needed to write a rule of Automatic Intermediate Rewarding, and where rules are found by name.

A rule is a class under `IntermediateRule`, whose fields are what a run file may say, with `observe(view)`. A package
brings one by an entry point of the group `leyden.air_rules`: the entry point's name is the run file's `rule`.
"""

from importlib.metadata import entry_points

from leyden.events import Evidence
from leyden.reward.core.rules import AIR_RULES, IntermediateRule, Signal
from leyden.reward.core.view import CallView, ChoiceView, RolloutView, TaskView

__all__ = [
    "GROUP", "CallView", "ChoiceView", "Evidence", "IntermediateRule", "RolloutView", "Signal", "TaskView", "air_rule",
]  # fmt: skip

GROUP = "leyden.air_rules"


def air_rule(name: str) -> type[IntermediateRule]:
    """The class of rule `name`, built in or brought by a package; of the packages only the one asked for is imported.

    Raises ValueError for a name that nobody has or that two have, and for an entry point that cannot be used.
    """
    points = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if len(points) + (name in AIR_RULES) > 1:
        raise ValueError(f"rule {name!r} is there more than once: {', '.join([*points, 'Leyden'])}")
    if name in AIR_RULES:
        return AIR_RULES[name]
    if not points:
        known = [*AIR_RULES, *sorted(entry_points(group=GROUP).names)]
        raise ValueError(f"rule {name!r} is none of {', '.join(known)}")
    [(value, point)] = points.items()
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"rule {name!r}: {value} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, IntermediateRule)):
        raise ValueError(f"rule {name!r}: {value} is no class under IntermediateRule")
    return found
