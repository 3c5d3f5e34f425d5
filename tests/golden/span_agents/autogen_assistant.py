"""AutoGen's assistant in a round-robin team, with a tool that fails once: its own spans and the OpenAI client's."""

import asyncio

from _telemetry import QUESTION, population, tracing
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import SingleThreadedAgentRuntime
from autogen_ext.models.openai import OpenAIChatCompletionClient
from opentelemetry.instrumentation.openai import OpenAIInstrumentor

provider = tracing()
OpenAIInstrumentor().instrument(tracer_provider=provider)


async def main() -> None:
    known = {
        "family": "unknown",
        "vision": False,
        "function_calling": True,
        "json_output": False,
        "structured_output": False,
    }
    model = OpenAIChatCompletionClient(model="policy", model_info=known)
    agent = AssistantAgent("geographer", model, tools=[population], reflect_on_tool_use=True, max_tool_iterations=3)
    runtime = SingleThreadedAgentRuntime(tracer_provider=provider)
    runtime.start()
    team = RoundRobinGroupChat([agent], termination_condition=MaxMessageTermination(8), max_turns=1, runtime=runtime)
    print((await team.run(task=QUESTION)).messages[-1].content)
    await runtime.stop()


asyncio.run(main())
provider.shutdown()
