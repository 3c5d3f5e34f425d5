"""CISPO (MiniMax-M1, 2506.13585): clips the importance weight, not the update, so that every token keeps a gradient."""

from typing import ClassVar, Literal

from pydantic import Field

from leyden.trainer.core.objectives.base import ActionTokens, Maximised, Objective


class Cispo(Objective):
    """clip(r, 1 - clip_low, 1 + clip_high) A log pi, where the clipped ratio is a constant."""

    clips: ClassVar[frozenset[str]] = frozenset({"clip_low", "clip_high"})

    name: Literal["cispo"] = "cispo"
    clip_low: float = Field(default=1.0, ge=0, le=1)
    """1: no lower bound, as in the paper."""
    clip_high: float = Field(default=0.28, ge=0)

    def maximise(self, tokens: ActionTokens) -> Maximised:
        """Token by token."""
        ratio_A = tokens.ratios().detach()
        clipped_A = ratio_A.clamp(1.0 - self.clip_low, 1.0 + self.clip_high)
        return Maximised(clipped_A * tokens.advantages_A * tokens.logprobs_A, clipped_A != ratio_A)
