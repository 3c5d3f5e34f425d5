"""Semantic Kernel's chat agent with a plugin, under its own diagnostics."""

import asyncio
import logging
import os

os.environ["SEMANTICKERNEL_EXPERIMENTAL_GENAI_ENABLE_OTEL_DIAGNOSTICS"] = "true"
os.environ["SEMANTICKERNEL_EXPERIMENTAL_GENAI_ENABLE_OTEL_DIAGNOSTICS_SENSITIVE"] = "true"

import _telemetry
from openai import AsyncOpenAI
from opentelemetry.sdk._logs import LoggingHandler
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion
from semantic_kernel.functions import kernel_function

provider, logs = _telemetry.tracing(), _telemetry.logging()
handler = LoggingHandler(logger_provider=logs)
handler.addFilter(logging.Filter("semantic_kernel"))
logging.getLogger().addHandler(handler)
logging.getLogger().setLevel(logging.INFO)


class Places:
    @kernel_function(name="population", description="How many people live in a city.")
    def population(self, city: str) -> str:
        return _telemetry.population(city)


async def main() -> None:
    service = OpenAIChatCompletion(ai_model_id="policy", async_client=AsyncOpenAI())
    agent = ChatCompletionAgent(service=service, name="geographer", instructions="Use the tool.", plugins=[Places()])
    print(await agent.get_response(messages=_telemetry.QUESTION.replace("Atlantis", "Leiden")))


asyncio.run(main())
provider.shutdown()
logs.shutdown()
