"""The OpenAI Agents SDK under OpenInference: a hand-over, a tool that fails once, a guardrail."""

from _agents_sdk import run
from _telemetry import tracing
from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

provider = tracing()
OpenAIAgentsInstrumentor().instrument(tracer_provider=provider)
run()
provider.shutdown()
