"""A loop around Anthropic's client with a tool that fails once, under OpenLLMetry."""

from _anthropic_loop import run
from _telemetry import tracing
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

provider = tracing()
AnthropicInstrumentor().instrument(tracer_provider=provider)
run()
provider.shutdown()
