"""Pydantic AI with a tool and its own OpenTelemetry instrumentation. Nothing here knows of Leyden."""

import os

from opentelemetry.context import attach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.openai import OpenAIChatModel

attach(extract({"traceparent": os.environ["TRACEPARENT"]}))
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))
agent = Agent(OpenAIChatModel("policy"), name="geographer", instructions="Use the tool.", retries=2)


@agent.tool_plain
def population(city: str) -> str:
    """How many people live in a city."""
    if city == "Atlantis":
        raise ModelRetry("no such city")
    return {"Leiden": "127000", "Delft": "106000"}.get(city, "unknown")


print(agent.run_sync(os.environ["QUESTION"]).output)
provider.shutdown()
