"""The plain OpenAI client under AgentOps, with its decorators for session, agent and tool."""

import os

import agentops
from _telemetry import converse, population
from agentops.sdk.decorators import agent, operation, session, tool
from openai import OpenAI

at = os.environ["AT"]
agentops.init(
    api_key="00000000-0000-0000-0000-000000000000",
    endpoint=at,
    app_url=at,
    exporter_endpoint=f"{at}/v1/traces",
    auto_start_session=False,
    fail_safe=True,
    max_wait_time=200,
)


@agent(name="geographer")
class Geographer:
    @tool(name="population")
    def population(self, city: str) -> str:
        return population(city)

    @operation(name="answer")
    def answer(self) -> str:
        return converse(OpenAI(), self.population)


@session(name="answering")
def main() -> None:
    print(Geographer().answer())


main()
