"""LangGraph's ready-made agent loop with a tool, as its documentation writes it. Nothing here knows of Leyden."""

import os

from langchain.agents import create_agent
from langchain_core.tools import ToolException, tool
from langchain_openai import ChatOpenAI
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.context import attach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

attach(extract({"traceparent": os.environ["TRACEPARENT"]}))
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
LangChainInstrumentor().instrument(tracer_provider=provider)


@tool
def population(city: str) -> str:
    """How many people live in a city."""
    if city == "Atlantis":
        raise ToolException("no such city")
    return {"Leiden": "127000", "Delft": "106000"}.get(city, "unknown")


population.handle_tool_error = True
agent = create_agent(ChatOpenAI(model="policy"), [population], system_prompt="Use the tool.", name="geographer")
result = agent.invoke({"messages": [{"role": "user", "content": os.environ["QUESTION"]}]})
print(result["messages"][-1].content)
provider.shutdown()
