"""Types of reward functions, and validation of their results. Has few imports: every worker process loads it."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from leyden.reward.core.failures import FailureKind
from leyden.reward.core.view import RolloutView
from leyden.scalar import as_number

Result = float | Mapping[str, float | None] | None
"""A number, None (no reward), or several named numbers."""
RewardFunction = Callable[[RolloutView], Result | Awaitable[Result]]
BatchedRewardFunction = Callable[[list[RolloutView]], Sequence[Result] | Awaitable[Sequence[Result]]]
"""One result per view, in order. Results must not depend on the other views: batches are formed arbitrarily."""


@dataclass(frozen=True)
class Answer:
    """A function's result for one attempt, or its failure."""

    values: Mapping[str, float] = field(default_factory=dict)
    """Values by name; "" stands for the rule's name. Empty: no reward."""
    failure: FailureKind | None = None
    message: str = ""

    @classmethod
    def failed(cls, kind: FailureKind, message: str) -> "Answer":
        """An answer with a failure instead of values."""
        return cls(failure=kind, message=message)

    @classmethod
    def of(cls, result: object) -> "Answer":
        """Validate what a function returned. An invalid result becomes a `malformed` failure."""
        try:
            named = result if isinstance(result, Mapping) else {"": result}
            values = {str(name): _number(value) for name, value in named.items() if value is not None}
        except (TypeError, ValueError, OverflowError) as error:
            return cls.failed(FailureKind.MALFORMED, str(error))
        return cls(dict(sorted(values.items())))


def _number(value: object) -> float:
    if (found := as_number(value)) is None:
        raise TypeError(
            f"a reward function must return a number, None or a dict of numbers, not {type(value).__name__}"
        )
    if not math.isfinite(number := float(found)):
        raise ValueError(f"a reward must be a finite number, not {number}")
    return number
