"""Strands with a tool that fails once, under its own tracer; messages are span events with Bedrock's blocks."""

from _telemetry import QUESTION, population, tracing
from strands import Agent, tool
from strands.models.openai import OpenAIModel

provider = tracing()
agent = Agent(
    OpenAIModel(model_id="policy"), tools=[tool(population)], system_prompt="Use the tool.", name="geographer",
    callback_handler=None,
)  # fmt: skip
print(agent(QUESTION))
provider.shutdown()
