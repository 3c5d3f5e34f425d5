"""The reward rules. To add a built-in rule, write a module with its class here and a line in `AIR_RULES`."""

from collections.abc import Mapping

from leyden.reward.core.rules.base import IntermediateRule, Rule, Shaping, Signal
from leyden.reward.core.rules.budget import Budget
from leyden.reward.core.rules.emitted import Emitted
from leyden.reward.core.rules.function import FunctionRule, answered
from leyden.reward.core.rules.human_feedback import HumanFeedback
from leyden.reward.core.rules.parseable_output import ParseableOutput
from leyden.reward.core.rules.repeated_call import RepeatedCall
from leyden.reward.core.rules.retrieval import Retrieval
from leyden.reward.core.rules.schema_valid_arguments import SchemaValidArguments
from leyden.reward.core.rules.self_correction import SelfCorrection
from leyden.reward.core.rules.tool_status import ToolStatus

AIR_RULES: Mapping[str, type[IntermediateRule]] = {
    "tool_status": ToolStatus,
    "schema_valid_arguments": SchemaValidArguments,
    "parseable_output": ParseableOutput,
    "retrieval": Retrieval,
    "repeated_call": RepeatedCall,
    "budget": Budget,
    "self_correction": SelfCorrection,
    "human_feedback": HumanFeedback,
}
"""The built-in rules: `rule` in the run file's `air:` list → class. The entry's other fields are the class's fields."""

__all__ = [
    "AIR_RULES", "Budget", "Emitted", "FunctionRule", "HumanFeedback", "IntermediateRule",
    "ParseableOutput", "RepeatedCall", "Retrieval", "Rule", "SchemaValidArguments",
    "SelfCorrection", "Shaping", "Signal", "ToolStatus", "answered",
]  # fmt: skip
