"""Haystack's agent with a tool that fails once, under its own tracer."""

import os

os.environ["HAYSTACK_CONTENT_TRACING_ENABLED"] = "true"

from _telemetry import QUESTION, TOOL, population, tracing
from haystack import tracing as haystack_tracing
from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool
from haystack_integrations.tracing.opentelemetry import OpenTelemetryTracer

provider = tracing()
haystack_tracing.enable_tracing(OpenTelemetryTracer(provider.get_tracer("haystack")))
described = TOOL["function"]
tool = Tool(described["name"], described["description"], described["parameters"], population)
agent = Agent(chat_generator=OpenAIChatGenerator(model="policy"), tools=[tool], system_prompt="Use the tool.")
print(agent.run([ChatMessage.from_user(QUESTION)])["messages"][-1].text)
provider.shutdown()
