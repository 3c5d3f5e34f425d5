"""LangChain's chat model with a tool, the loop written out as its documentation does. Nothing here knows of Leyden."""

import os

from langchain_core.messages import HumanMessage, SystemMessage
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
model = ChatOpenAI(model="policy").bind_tools([population])
messages = [SystemMessage("Use the tool."), HumanMessage(os.environ["QUESTION"])]
answer = model.invoke(messages)
messages.append(answer)
while answer.tool_calls:
    messages += [population.invoke(call) for call in answer.tool_calls]
    answer = model.invoke(messages)
    messages.append(answer)
print(answer.content)
provider.shutdown()
