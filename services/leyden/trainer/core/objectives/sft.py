"""Supervised fine-tuning on the samples that did better than their group (rejection sampling; RAFT, 2304.06767)."""

from typing import ClassVar, Literal

from leyden.trainer.core.objectives.base import ActionTokens, Maximised, Objective


class Sft(Objective):
    """log pi of tokens whose advantage is above 0, all alike; the others are left out."""

    uses_ratio: ClassVar[bool] = False
    is_corrected: ClassVar[bool] = False

    name: Literal["sft"] = "sft"

    def maximise(self, tokens: ActionTokens) -> Maximised:
        """Token by token."""
        chosen_A = tokens.advantages_A > 0
        return Maximised(chosen_A * tokens.logprobs_A, ~chosen_A)
