"""The plain OpenAI client under OpenLLMetry, with its decorators for workflow, agent, task and tool."""

import os

from _telemetry import converse, population
from openai import OpenAI
from traceloop.sdk import Traceloop
from traceloop.sdk.decorators import agent, task, tool, workflow

Traceloop.init(app_name="agent", api_endpoint=os.environ["AT"], disable_batch=True, telemetry_enabled=False)


@task(name="plan")
def plan(question: str) -> str:
    return f"look up {question}"


@agent(name="geographer")
def geographer() -> str:
    plan("Atlantis")
    return converse(OpenAI(), tool(name="population")(population))


@workflow(name="answering")
def main() -> None:
    Traceloop.set_association_properties({"session_id": "s1", "user_id": "u1"})
    print(geographer())


main()
