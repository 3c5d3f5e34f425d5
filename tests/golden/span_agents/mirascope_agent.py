"""Mirascope's agent loop with a tool that fails once, under its own GenAI instrumentation."""

from _telemetry import QUESTION, population, tracing
from mirascope import llm, ops

provider = tracing()
ops.configure(tracer_provider=provider)
ops.instrument_llm()
tool = llm.tool(population)


@ops.trace
def geographer(question: str) -> str:
    """As Mirascope's README writes an agent: ask, run the tools, go on."""
    messages = [llm.messages.system("Use the tool."), llm.messages.user(question)]
    response = llm.Model("openai/policy:completions").call(messages, tools=[tool])
    while response.tool_calls:
        response = response.resume(response.execute_tools())
    return response.text()


print(geographer(QUESTION))
provider.shutdown()
