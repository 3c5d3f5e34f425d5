"""Names of span attributes, in one place. Constants only.

`gen_ai.*` and `error.*` follow OpenTelemetry semantic conventions 1.44.0 (Python package 0.66b2, GenAI: development).
What they lack is under our own prefix, `leyden.`.
"""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_AGENT_NAME = "gen_ai.agent.name"
GEN_AI_TOOL_NAME = "gen_ai.tool.name"
GEN_AI_TOOL_TYPE = "gen_ai.tool.type"
GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id"
GEN_AI_TOOL_CALL_ARGUMENTS = "gen_ai.tool.call.arguments"
"""A JSON object, as a string."""
GEN_AI_TOOL_CALL_RESULT = "gen_ai.tool.call.result"
"""Any JSON value, as a string."""
GEN_AI_EVALUATION_NAME = "gen_ai.evaluation.name"
GEN_AI_EVALUATION_SCORE_VALUE = "gen_ai.evaluation.score.value"
GEN_AI_EVALUATION_SCORE_LABEL = "gen_ai.evaluation.score.label"
GEN_AI_EVALUATION_EXPLANATION = "gen_ai.evaluation.explanation"
ERROR_TYPE = "error.type"

INVOKE_AGENT = "invoke_agent"
EXECUTE_TOOL = "execute_tool"
EVALUATION_RESULT = "gen_ai.evaluation.result"
"""The conventions' event; we send it as a span of no length, so that it is counted and bound like any other."""

LEYDEN_ROLLOUT_ID = "leyden.rollout_id"
LEYDEN_ATTEMPT = "leyden.attempt"
LEYDEN_TASK_ID = "leyden.task_id"
LEYDEN_MODE = "leyden.mode"
LEYDEN_TOOL_PARAMETERS = "leyden.tool.parameters_schema"
"""JSON Schema of the tool's arguments, as a string."""
