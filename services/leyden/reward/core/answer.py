"""What a reward function is, and what it gave, checked. Imports little: every worker process loads this."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real

from leyden.reward.core.failures import FailureKind
from leyden.reward.core.view import RolloutView

Result = float | Mapping[str, float | None] | None
"""A number; None for "no opinion"; or several named numbers."""
RewardFunction = Callable[[RolloutView], Result | Awaitable[Result]]
BatchedRewardFunction = Callable[[list[RolloutView]], Sequence[Result] | Awaitable[Sequence[Result]]]
"""One result per view, in order. Each must be what the view alone would give: batches are cut as records arrive."""


@dataclass(frozen=True)
class Answer:
    """What a function gave for one attempt, or why it gave nothing."""

    values: Mapping[str, float] = field(default_factory=dict)
    """By name; "" is the rule's own. Empty: no opinion."""
    failure: FailureKind | None = None
    message: str = ""

    @classmethod
    def failed(cls, kind: FailureKind, message: str) -> "Answer":
        """The answer that is none."""
        return cls(failure=kind, message=message)

    @classmethod
    def of(cls, result: object) -> "Answer":
        """The checked answer in what a function returned; one that is no reward is a `malformed` failure."""
        try:
            named = result if isinstance(result, Mapping) else {"": result}
            values = {str(name): _number(value) for name, value in named.items() if value is not None}
        except (TypeError, ValueError, OverflowError) as error:
            return cls.failed(FailureKind.MALFORMED, str(error))
        return cls(dict(sorted(values.items())))


def _number(value: object) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"a reward function gives a number, None or a dict of numbers, not {type(value).__name__}")
    if not math.isfinite(number := float(value)):
        raise ValueError(f"a reward is a finite number, not {number}")
    return number
