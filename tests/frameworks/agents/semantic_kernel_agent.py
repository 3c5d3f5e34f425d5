"""Semantic Kernel's chat agent with a plugin, and the spans that it makes itself. Nothing here knows of Leyden."""

import asyncio
import os

os.environ["SEMANTICKERNEL_EXPERIMENTAL_GENAI_ENABLE_OTEL_DIAGNOSTICS_SENSITIVE"] = "true"

from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion
from semantic_kernel.functions import kernel_function

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)


class Atlas:
    """What the agent may look up."""

    @kernel_function(description="How many people live in a city.")
    def population(self, city: str) -> str:
        """Look it up."""
        if city == "Atlantis":
            raise ValueError("no such city")
        return {"Leiden": "127000", "Delft": "106000"}.get(city, "unknown")


async def main() -> None:
    """Ask once."""
    attach(extract({"traceparent": os.environ["TRACEPARENT"]}))
    service = OpenAIChatCompletion(ai_model_id="policy")
    agent = ChatCompletionAgent(service=service, name="geographer", instructions="Use the tool.", plugins=[Atlas()])
    print(await agent.get_response(os.environ["QUESTION"]))


asyncio.run(main())
provider.shutdown()
