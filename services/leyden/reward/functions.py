"""Reward functions that come with Leyden, and what is needed to write one.

A reward function takes a `RolloutView` and returns a number, None ("no opinion"), or a dict of named numbers. The run
file names it by entry point (group `leyden.reward_functions`) or as `module:function`.
"""

import math

from leyden.events import Json
from leyden.reward.core.rules.function import RewardFunction
from leyden.reward.core.view import CallView, ChoiceView, RolloutView, TaskView

__all__ = ["CallView", "ChoiceView", "RewardFunction", "RolloutView", "TaskView", "exact_match"]


def exact_match(view: RolloutView) -> float | None:
    """1.0 when the output (or, without one, the last answer's text) is the task's `metadata.answer`, else 0.0.

    Numbers are compared as numbers, texts without surrounding space and case. None when the task has no answer.
    """
    if (expected := view.task.metadata.get("answer")) is None:
        return None
    given = view.output if view.output is not None else view.final_text
    return float(_canonical(given) == _canonical(expected))


def _canonical(value: Json) -> object:
    """What two equal answers have in common; true is not the number 1."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    text = value.strip().casefold() if isinstance(value, str) else value
    if not isinstance(text, str | int | float):
        return text
    try:
        number = float(text.replace(",", "")) if isinstance(text, str) else float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
