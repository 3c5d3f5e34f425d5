"""The plain policy gradient (Williams 1992): no ratio, no clip. RLOO and REINFORCE++ are this with their advantages."""

from typing import ClassVar, Literal

from leyden.trainer.core.objectives.base import ActionTokens, Maximised, Objective


class Reinforce(Objective):
    """A log pi per token."""

    uses_ratio: ClassVar[bool] = False

    name: Literal["reinforce"] = "reinforce"

    def maximise(self, tokens: ActionTokens) -> Maximised:
        """Token by token."""
        value_A = tokens.advantages_A * tokens.logprobs_A
        return Maximised(value_A, value_A.new_zeros(value_A.shape).bool())
