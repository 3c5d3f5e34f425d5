"""A loop around Anthropic's client with a tool that fails once, under OpenInference."""

from _anthropic_loop import run
from _telemetry import tracing
from openinference.instrumentation.anthropic import AnthropicInstrumentor

provider = tracing()
AnthropicInstrumentor().instrument(tracer_provider=provider)
run()
provider.shutdown()
