"""A CrewAI crew of one agent with a tool. Nothing here knows of Leyden."""

import os

os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "CREWAI_TRACING_ENABLED": "false"}

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool
from openinference.instrumentation.crewai import CrewAIInstrumentor
from opentelemetry.context import attach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

attach(extract({"traceparent": os.environ["TRACEPARENT"]}))
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
CrewAIInstrumentor().instrument(tracer_provider=provider)


@tool("population")
def population(city: str) -> str:
    """How many people live in a city."""
    if city == "Atlantis":
        raise ValueError("no such city")
    return {"Leiden": "127000", "Delft": "106000"}.get(city, "unknown")


geographer = Agent(
    role="geographer",
    goal="Answer",
    backstory="Use the tool.",
    tools=[population],
    llm=LLM(model="policy", provider="openai"),
)
task = Task(description=os.environ["QUESTION"], expected_output="a number", agent=geographer)
print(Crew(agents=[geographer], tasks=[task], verbose=False).kickoff().raw)
provider.shutdown()
