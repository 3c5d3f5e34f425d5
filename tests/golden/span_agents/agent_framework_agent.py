"""Microsoft's Agent Framework with a tool that fails once, under its own instrumentation."""

import asyncio
import os

os.environ["ENABLE_INSTRUMENTATION"] = "true"
os.environ["ENABLE_SENSITIVE_DATA"] = "true"

from _telemetry import QUESTION, population, tracing
from agent_framework import Agent
from agent_framework.openai import OpenAIChatCompletionClient

provider = tracing()


async def main() -> None:
    client = OpenAIChatCompletionClient(model="policy")
    agent = Agent(client, name="geographer", instructions="Use the tool.", tools=[population])
    print((await agent.run(QUESTION)).text)


asyncio.run(main())
provider.shutdown()
