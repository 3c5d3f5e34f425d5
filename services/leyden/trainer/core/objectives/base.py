"""What every objective is: settings of the run file, and a function of a row's action tokens. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Largest absolute log-ratio of two policies that is exponentiated, as in verl; e^20 is 5e8. Beyond it a ratio is
constant, without a gradient, so that no single token makes the loss or its gradient infinite."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ActionTokens:
    """A action tokens of S sequences, each sequence whole. Logprobs are of the sampled tokens at their temperature."""

    logprobs_A: Tensor
    """Of the policy in training; the only one with a gradient."""
    old_A: Tensor
    """Of the policy in the ratio's denominator."""
    behaviour_A: Tensor
    """Of the engine that sampled."""
    advantages_A: Tensor
    sequence_A: Tensor
    """Which sequence (0 to S - 1) each token is of, int64."""

    def ratios(self) -> Tensor:
        """The ratio of `logprobs_A` to `old_A` per token, [A]."""
        return bounded_log_ratio(self.logprobs_A, self.old_A).exp()

    def sums(self, values_A: Tensor) -> Tensor:
        """For each token the sum of `values_A` over its sequence, [A]."""
        sums_S = values_A.new_zeros(int(self.sequence_A.max()) + 1).index_add(0, self.sequence_A, values_A)
        return sums_S.index_select(0, self.sequence_A)

    def means(self, values_A: Tensor) -> Tensor:
        """For each token the mean of `values_A` over its sequence, [A]."""
        return self.sums(values_A) / self.sums(values_A.new_ones(values_A.shape))


@dataclass(frozen=True, eq=False)
class Maximised:
    """What an objective makes of a row."""

    value_A: Tensor
    """Its weighted sum over the tokens is maximised; has the gradient."""
    held_A: Tensor
    """Whether a clip holds the token, or the objective leaves it out: it has no gradient. Bool."""


class Objective(BaseModel, ABC):
    """An objective, with its own settings as fields; a subclass has the field `name`."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    uses_ratio: ClassVar[bool] = True
    """Whether `old_A` matters to it."""
    clips: ClassVar[frozenset[str]] = frozenset()
    """Those of its settings that matter only where the ratio differs from 1."""
    is_corrected: ClassVar[bool] = True
    """Whether its tokens get an importance weight for the distance to the engine that sampled."""

    name: str
    """Which objective it is."""

    @abstractmethod
    def maximise(self, tokens: ActionTokens) -> Maximised:
        """The value of each token. Weights, importance correction, KL and entropy are added by the caller."""
        ...


def bounded_log_ratio(logprobs_A: Tensor, base_A: Tensor) -> Tensor:
    """Logprobs - base, [A], within ±`LOG_RATIO_LIMIT`."""
    return (logprobs_A - base_A).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def clipped_value(
    ratio_A: Tensor, advantages_A: Tensor, low: float, high: float, dual: float | None = None
) -> Maximised:
    """PPO's pessimistic bound min(r A, clip(r, 1 - low, 1 + high) A), and for A < 0 at least dual * A."""
    plain_A = ratio_A * advantages_A
    clipped_A = ratio_A.clamp(1.0 - low, 1.0 + high) * advantages_A
    value_A, held_A = plain_A.minimum(clipped_A), clipped_A < plain_A
    if dual is None:
        return Maximised(value_A, held_A)
    floor_A = dual * advantages_A
    bounded_A = (advantages_A < 0) & (value_A < floor_A)
    return Maximised(floor_A.where(bounded_A, value_A), held_A | bounded_A)
