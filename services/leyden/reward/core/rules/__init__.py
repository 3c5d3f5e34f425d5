"""The reward rules. A new one is a module here with one small class, and a line in `AIR_RULES`."""

from leyden.reward.core.rules.base import IntermediateRule, Rule, Signal
from leyden.reward.core.rules.emitted import Emitted
from leyden.reward.core.rules.function import FunctionRule, RewardFunction
from leyden.reward.core.rules.schema_valid_arguments import SchemaValidArguments
from leyden.reward.core.rules.tool_status import ToolStatus

AIR_RULES: dict[str, type[IntermediateRule]] = {
    "tool_status": ToolStatus,
    "schema_valid_arguments": SchemaValidArguments,
}
"""`rule` in the run file's `air:` list → its class; the class's fields are the entry's fields."""

__all__ = [
    "AIR_RULES", "Emitted", "FunctionRule", "IntermediateRule", "RewardFunction", "Rule", "SchemaValidArguments",
    "Signal", "ToolStatus",
]  # fmt: skip
