"""smolagents with a tool that fails once, under OpenInference."""

from _telemetry import QUESTION, population, tracing
from openinference.instrumentation.smolagents import SmolagentsInstrumentor
from smolagents import OpenAIModel, Tool, ToolCallingAgent

provider = tracing()
SmolagentsInstrumentor().instrument(tracer_provider=provider)


class Population(Tool):
    name = "population"
    description = "How many people live in a city."
    inputs = {"city": {"type": "string", "description": "The city."}}  # noqa: RUF012 - as its documentation has it
    output_type = "string"

    def forward(self, city: str) -> str:
        return population(city)


agent = ToolCallingAgent(tools=[Population()], model=OpenAIModel("policy"), name="geographer", description="Counts.")
print(agent.run(QUESTION))
provider.shutdown()
