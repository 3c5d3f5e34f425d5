"""Agno with a tool that fails once, under OpenInference."""

from _telemetry import QUESTION, population, tracing
from agno.agent import Agent
from agno.models.openai import OpenAIChat
from openinference.instrumentation.agno import AgnoInstrumentor

provider = tracing()
AgnoInstrumentor().instrument(tracer_provider=provider)
agent = Agent(model=OpenAIChat(id="policy"), tools=[population], name="geographer", instructions="Use the tool.")
print(agent.run(QUESTION).content)
provider.shutdown()
