"""The plain OpenAI client under OpenTelemetry's own instrumentation, in the conventions as they are now."""

import os

os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"

from _telemetry import converse, logging, tracing
from openai import OpenAI
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

provider, logs = tracing(), logging()
OpenAIInstrumentor().instrument(tracer_provider=provider)
with provider.get_tracer("agent").start_as_current_span(
    "invoke_agent geographer",
    attributes={
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "geographer",
        "gen_ai.conversation.id": "c1",
    },
):
    print(converse(OpenAI()))
provider.shutdown()
logs.shutdown()
