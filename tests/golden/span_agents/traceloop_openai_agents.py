"""The OpenAI Agents SDK under OpenLLMetry's instrumentation of it."""

from _agents_sdk import run
from _telemetry import tracing
from opentelemetry.instrumentation.openai_agents import OpenAIAgentsInstrumentor

provider = tracing()
OpenAIAgentsInstrumentor().instrument(tracer_provider=provider)
run()
provider.shutdown()
