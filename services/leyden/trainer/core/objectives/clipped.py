"""The clipped surrogate of PPO (1707.06347) and GRPO (2402.03300), with two clips (DAPO, 2503.14476), and dual clip."""

from typing import ClassVar, Literal

from pydantic import Field

from leyden.trainer.core.objectives.base import ActionTokens, Maximised, Objective, clipped_value


class Clipped(Objective):
    """min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) per token."""

    clips: ClassVar[frozenset[str]] = frozenset({"clip_low", "clip_high", "dual_clip"})

    name: Literal["clipped"] = "clipped"
    clip_low: float = Field(default=0.2, ge=0, lt=1)
    clip_high: float = Field(default=0.28, ge=0)
    dual_clip: float | None = Field(default=3.0, gt=1)
    """Bound c of the ratio where the advantage is negative (1912.09729). null: none."""

    def maximise(self, tokens: ActionTokens) -> Maximised:
        """Token by token."""
        return clipped_value(tokens.ratios(), tokens.advantages_A, self.clip_low, self.clip_high, self.dual_clip)
