"""An agent of the OpenAI Agents SDK, for the instrumentations of it."""

from _telemetry import QUESTION, population
from agents import Agent, GuardrailFunctionOutput, OpenAIChatCompletionsModel, Runner, function_tool, input_guardrail
from openai import AsyncOpenAI


def run() -> None:
    """Triage hands over to a specialist with a tool."""

    @input_guardrail
    async def polite(context, agent, given):  # type: ignore[no-untyped-def]
        return GuardrailFunctionOutput(output_info="polite", tripwire_triggered=False)

    model = OpenAIChatCompletionsModel("policy", AsyncOpenAI())
    specialist = Agent(name="geographer", instructions="Use the tool.", model=model, tools=[function_tool(population)])
    triage = Agent(
        name="triage", instructions="Hand over.", model=model, handoffs=[specialist], input_guardrails=[polite]
    )
    print(Runner.run_sync(triage, QUESTION).final_output)
