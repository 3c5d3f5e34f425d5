"""The API for writing reward functions, and the function `exact_match`.

A reward function takes a `RolloutView` and returns a number, None (no reward), or a dict of named numbers. It may be
`async`. With `batched: true` it takes a list of views and returns a list of such results. The run file names it by
entry point (group `leyden.reward_functions`) or as `module:function`.
"""

from leyden.reward.core.answer import BatchedRewardFunction, Result, RewardFunction
from leyden.reward.core.calls import CallView, ChoiceView
from leyden.reward.core.view import RolloutView, TaskView
from leyden.reward.graders.exact_match import ExactMatch

__all__ = [
    "BatchedRewardFunction", "CallView", "ChoiceView", "Result", "RewardFunction", "RolloutView", "TaskView",
    "exact_match",
]  # fmt: skip

_EXACT = ExactMatch()


def exact_match(view: RolloutView) -> float | None:
    """1.0 if the output (or, without one, the text of the last response) equals the task's `metadata.answer`, else 0.0.

    Numbers are compared as numbers, text without surrounding space and case. None if the task has no answer.
    """
    return _EXACT(view)
