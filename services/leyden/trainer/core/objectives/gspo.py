"""Group sequence policy optimisation (2507.18071): one ratio for a whole sequence, the mean of its tokens' log-ratios.

In the paper's token form (its section 4.3), so that the advantage may differ from token to token. With equal advantages
and `aggregation: sequence` it is the paper's sequence form. All the actions of a merged sequence share one ratio.
"""

from typing import ClassVar, Literal

from pydantic import Field

from leyden.trainer.core.objectives.base import (
    ActionTokens,
    Maximised,
    Objective,
    bounded_log_ratio,
    clipped_value,
)


class Gspo(Objective):
    """min(s A, clip(s, 1 - clip_low, 1 + clip_high) A), where s is the sequence's ratio."""

    clips: ClassVar[frozenset[str]] = frozenset({"clip_low", "clip_high"})

    name: Literal["gspo"] = "gspo"
    clip_low: float = Field(default=3e-4, ge=0, lt=1)
    clip_high: float = Field(default=4e-4, ge=0)
    """A sequence's ratio stays much closer to 1 than a token's: the paper clips at 3e-4 and 4e-4."""

    def maximise(self, tokens: ActionTokens) -> Maximised:
        """S as a number, times a token ratio that is 1 and carries the gradient."""
        logprobs_A = tokens.logprobs_A
        mean_A = tokens.means(bounded_log_ratio(logprobs_A.detach(), tokens.old_A))
        ratio_A = mean_A.exp() * (logprobs_A - logprobs_A.detach()).exp()
        return clipped_value(ratio_A, tokens.advantages_A, self.clip_low, self.clip_high)
