"""The plain OpenAI client under OpenInference, with a search before it; the tool's and the search's spans by hand."""

import json

from _telemetry import QUESTION, converse, population, tracing
from openai import OpenAI
from openinference.instrumentation import using_session
from openinference.instrumentation.openai import OpenAIInstrumentor

provider = tracing()
OpenAIInstrumentor().instrument(tracer_provider=provider)
tracer = provider.get_tracer("agent")


def search(query: str) -> None:
    attributes = {"openinference.span.kind": "RETRIEVER", "input.value": query}
    for index, (name, text) in enumerate((("d1", "Atlantis sank."), ("d2", "Delft is a city."))):
        document = f"retrieval.documents.{index}.document"
        attributes |= {f"{document}.id": name, f"{document}.content": text, f"{document}.score": 0.5}
    tracer.start_span("search", attributes=attributes).end()


def run_tool(city: str) -> str:
    attributes = {
        "openinference.span.kind": "TOOL",
        "tool.name": "population",
        "input.value": json.dumps({"city": city}),
    }
    with tracer.start_as_current_span(
        "population", attributes={**attributes, "input.mime_type": "application/json"}
    ) as span:
        result = population(city)
        span.set_attribute("output.value", result)
        return result


with (
    using_session("s1"),
    tracer.start_as_current_span(
        "geographer", attributes={"openinference.span.kind": "AGENT", "agent.name": "geographer"}
    ),
):
    search(QUESTION)
    print(converse(OpenAI(), run_tool))
    OpenAI().embeddings.create(model="embedder", input=["Delft"])
provider.shutdown()
