"""AutoGen's assistant agent with a tool, and the spans that AutoGen itself makes. Nothing here knows of Leyden."""

import asyncio
import os

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient
from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)


async def population(city: str) -> str:
    """How many people live in a city."""
    if city == "Atlantis":
        raise ValueError("no such city")
    return {"Leiden": "127000", "Delft": "106000"}.get(city, "unknown")


async def main() -> None:
    """Ask once."""
    attach(extract({"traceparent": os.environ["TRACEPARENT"]}))
    about = ModelInfo(vision=False, function_calling=True, json_output=False, family="unknown", structured_output=False)
    client = OpenAIChatCompletionClient(model="policy", model_info=about)
    agent = AssistantAgent(
        "geographer", client, tools=[population], system_message="Use the tool.", max_tool_iterations=4
    )
    result = await agent.run(task=os.environ["QUESTION"])
    print(result.messages[-1].content)
    await client.close()


asyncio.run(main())
provider.shutdown()
