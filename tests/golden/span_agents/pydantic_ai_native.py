"""Pydantic AI with a tool that asks to be tried again, under its own instrumentation."""

from _telemetry import QUESTION, population, tracing
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.openai import OpenAIChatModel

provider = tracing()
Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))
agent = Agent(OpenAIChatModel("policy"), name="geographer", instructions="Use the tool.", retries=2)


@agent.tool_plain(name="population")
def population_or_retry(city: str) -> str:
    """How many people live in a city."""
    try:
        return population(city)
    except ValueError as error:
        raise ModelRetry(str(error)) from error


print(agent.run_sync(QUESTION).output)
provider.shutdown()
