"""What is needed to write a reward function, and the one that the run file can name without parameters.

A reward function takes a `RolloutView` and returns a number, None ("no opinion"), or a dict of named numbers; it may be
`async`. With `batched: true` it takes a list of views and returns a list of such results. The run file names it by
entry point (group `leyden.reward_functions`) or as `module:function`.
"""

from leyden.reward.core.answer import BatchedRewardFunction, Result, RewardFunction
from leyden.reward.core.view import CallView, ChoiceView, RolloutView, TaskView
from leyden.reward.graders.exact_match import ExactMatch

__all__ = [
    "BatchedRewardFunction", "CallView", "ChoiceView", "Result", "RewardFunction", "RolloutView", "TaskView",
    "exact_match",
]  # fmt: skip

_EXACT = ExactMatch()


def exact_match(view: RolloutView) -> float | None:
    """1.0 when the output (or, without one, the last answer's text) is the task's `metadata.answer`, else 0.0.

    Numbers are compared as numbers, texts without surrounding space and case. None when the task has no answer.
    """
    return _EXACT(view)
