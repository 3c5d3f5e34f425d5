"""Attribute names of the OpenTelemetry GenAI conventions, old and new.

The conventions are still in development, so these follow one commit of open-telemetry/semantic-conventions-genai:
002c8a6ea1c8a42b14a4527db83b3cabcded610a (model/gen-ai/registry.yaml). opentelemetry-semantic-conventions 0.66b2 has
the same names, and those before 1.37; names from elsewhere say whose they are. They are written out, not imported,
because the packages move names between releases and old recordings must stay readable.
tests/unit/ingest/test_names.py compares them with the installed package.
"""

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
SYSTEM = "gen_ai.system"
"""`gen_ai.provider.name` as it was called before 1.37."""
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FINISH_REASON = "gen_ai.response.finish_reason"
"""From Semantic Kernel: a single string such as `FinishReason.TOOL_CALLS`."""
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
PROMPT = "gen_ai.prompt"
COMPLETION = "gen_ai.completion"
REQUEST_PREFIX = "gen_ai.request."
INPUT_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
OUTPUT_TOKENS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
CACHED_TOKENS = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.input_tokens.cached",
)
CACHE_WRITE_TOKENS = ("gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_creation_input_tokens")
AGENT_NAME = "gen_ai.agent.name"
AGENT_ID = "gen_ai.agent.id"
AGENT_DESCRIPTION = "gen_ai.agent.description"
CONVERSATION_ID = "gen_ai.conversation.id"
SESSION_ID = "session.id"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_DESCRIPTION = "gen_ai.tool.description"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
TOOL_PARAMETERS = ("leyden.tool.parameters_schema", "gen_ai.tool.json_schema")
"""Our own, and Strands': the conventions have schemas only on the model call's span, as a list of all definitions."""
RETRIEVAL_QUERY = ("gen_ai.retrieval.query.text", "gen_ai.retrieval.query", "gen_ai.memory.query.text")
RETRIEVAL_DOCUMENTS = ("gen_ai.retrieval.documents", "gen_ai.memory.records")
EVALUATION_RESULT = "gen_ai.evaluation.result"
EVALUATION_NAME = "gen_ai.evaluation.name"
EVALUATION_VALUE = "gen_ai.evaluation.score.value"
EVALUATION_LABEL = "gen_ai.evaluation.score.label"
EVALUATION_EXPLANATION = "gen_ai.evaluation.explanation"
