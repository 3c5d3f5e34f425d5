"""A reward function in Python: anything that can be computed from a finished attempt."""

from collections.abc import Callable, Iterable, Mapping
from numbers import Real

from leyden.events import Evidence
from leyden.reward.core.rules.base import Rule, Signal
from leyden.reward.core.view import RolloutView

RewardFunction = Callable[[RolloutView], float | Mapping[str, float | None] | None]
"""A number; None for "no opinion"; or several named numbers."""


class FunctionRule(Rule):
    """Calls `function` once per attempt. It must depend on the view alone, or replay will not give the same rewards."""

    function: RewardFunction

    def signals(self, view: RolloutView) -> Iterable[Signal]:
        result = self.function(view)
        evidence = Evidence(kind="rollout", id=view.rollout_id)
        if isinstance(result, Mapping):
            return [
                Signal(_number(value), evidence, str(key)) for key, value in sorted(result.items()) if value is not None
            ]
        return [] if result is None else [Signal(_number(result), evidence)]


def _number(value: object) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"a reward function gives a number, None or a dict of numbers, not {type(value).__name__}")
    return float(value)
