"""The plain OpenAI client under OpenTelemetry's own instrumentation, in the older conventions: messages in logs."""

import os

os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "true"

from _telemetry import converse, logging, tracing
from openai import OpenAI
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

provider, logs = tracing(), logging()
OpenAIInstrumentor().instrument(tracer_provider=provider)
with provider.get_tracer("agent").start_as_current_span("run"):
    print(converse(OpenAI()))
provider.shutdown()
logs.shutdown()
