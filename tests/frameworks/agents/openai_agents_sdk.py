"""The OpenAI Agents SDK: a triage agent hands over to a specialist with a tool. Nothing here knows of Leyden."""

import os

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool
from openai import AsyncOpenAI
from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor
from opentelemetry.context import attach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

attach(extract({"traceparent": os.environ["TRACEPARENT"]}))
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
OpenAIAgentsInstrumentor().instrument(tracer_provider=provider)


@function_tool
def population(city: str) -> str:
    """How many people live in a city."""
    if city == "Atlantis":
        raise ValueError("no such city")
    return {"Leiden": "127000", "Delft": "106000"}.get(city, "unknown")


model = OpenAIChatCompletionsModel("policy", AsyncOpenAI())
specialist = Agent(name="geographer", instructions="Use the tool.", model=model, tools=[population])
triage = Agent(name="triage", instructions="Hand over to the right agent.", model=model, handoffs=[specialist])
print(Runner.run_sync(triage, os.environ["QUESTION"]).final_output)
provider.shutdown()
