"""google-adk with a tool that reports its failure as a result, under its own tracer; the model through LiteLLM."""

import asyncio
import os

os.environ.setdefault("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")

from _telemetry import QUESTION, logging, population, tracing
from google.adk.agents import LlmAgent
from google.adk.models.lite_llm import LiteLlm
from google.adk.runners import InMemoryRunner
from google.genai import types


def population_or_error(city: str) -> dict:  # type: ignore[type-arg]
    """How many people live in a city."""
    try:
        return {"isError": False, "content": [{"type": "text", "text": population(city)}]}
    except ValueError as error:
        return {"isError": True, "content": [{"type": "text", "text": str(error)}]}


population_or_error.__name__ = "population"


async def main() -> None:
    provider, logs = tracing(), logging()
    model = LiteLlm(model="openai/policy")
    agent = LlmAgent(model=model, tools=[population_or_error], instruction="Use the tool.", name="geographer")
    runner = InMemoryRunner(agent, app_name="places")
    session = await runner.session_service.create_session(app_name="places", user_id="u1", session_id="c1")
    question = types.Content(role="user", parts=[types.Part(text=QUESTION)])
    async for event in runner.run_async(user_id="u1", session_id=session.id, new_message=question):
        print(event.content)
    provider.shutdown()
    logs.shutdown()


asyncio.run(main())
