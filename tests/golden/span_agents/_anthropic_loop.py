"""The plain loop around Anthropic's client, for the instrumentations of it: they know nothing of its tool runner."""

import os

import anthropic
from _telemetry import QUESTION, TOOL, population


def run() -> None:
    """Ask, run the tool, which fails once, and go on until the model says the number."""
    client = anthropic.Anthropic(base_url=os.environ["OPENAI_BASE_URL"].removesuffix("/v1"))
    function = TOOL["function"]
    tool = {"name": function["name"], "description": function["description"], "input_schema": function["parameters"]}
    messages = [{"role": "user", "content": QUESTION}]
    while True:
        reply = client.messages.create(
            model="policy", max_tokens=100, system="Use the tool.", messages=messages, tools=[tool]
        )
        results = [result_of(block) for block in reply.content if block.type == "tool_use"]
        if not results:
            return print(reply.content[0].text)
        messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": results}]


def result_of(block):  # type: ignore[no-untyped-def]
    """What the tool says, as the API wants it."""
    result = {"type": "tool_result", "tool_use_id": block.id}
    try:
        return result | {"content": population(**block.input)}
    except ValueError as error:
        return result | {"content": str(error), "is_error": True}
