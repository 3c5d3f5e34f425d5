"""Tool calls and forced forms through every model API, in front of a real engine whose model has learnt two calls.

A test class inherits these and gives the fixtures `engine` and `direct`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from engine_support import Direct, EngineProcess, save_model_that_says
from integration.engine_api_laws import Door, DoorLaws, tokens_of

QUESTION = "Add"
BOTH = (
    'So: <tool_call>{"name":"add","arguments":{"a":1}}</tool_call>\n'
    '<tool_call>{"name":"add","arguments":{"a":2}}</tool_call>'
)
SCHEMA: Any = {
    "type": "object",
    "properties": {"a": {"type": "integer", "enum": [1, 2]}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
NAMED: Any = {"type": "function", "function": {"name": "add"}}
CALLS = [("add", {"a": 1}), ("add", {"a": 2})]
ASKED: Any = {
    "model": "tiny",
    "messages": [{"role": "user", "content": QUESTION}],
    "tools": [TOOL],
    "max_tokens": 200,
    "temperature": 0,
}
NO_BLANKS: Any = {str(token): -100 for token in range(188, 221)}
"""White space and control characters, for a random model that would write nothing else inside of a form."""


def called(tool_calls: Any) -> list[tuple[str, Any]]:
    """Names and arguments of an OpenAI message's tool calls, objects or JSON."""
    plain = [call if isinstance(call, dict) else call.model_dump() for call in tool_calls or ()]
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in plain]


class ToolCallLaws(DoorLaws):
    @pytest.fixture(scope="class")
    @classmethod
    def speaker(cls, engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        """Weights that call the tool twice, live for these tests."""
        before = engine.folders[engine.version()["version"]]
        folder = save_model_that_says(tmp_path_factory.mktemp("speaker") / "weights", [(QUESTION, BOTH)])
        engine.swap(folder)
        yield folder
        engine.swap(before)

    @pytest.fixture(scope="class")
    @classmethod
    def models_of(cls, direct: dict[Path, Direct], speaker: Path) -> dict[Path, Direct]:
        return direct | {speaker: Direct(speaker)}

    async def test_tool_calls_are_read_shown_and_recorded(self, door: Door) -> None:
        reply = (await door.openai.chat.completions.create(**ASKED)).choices[0]
        call = door.call("/v1/chat/completions")
        assert (called(reply.message.tool_calls), reply.finish_reason) == (CALLS, "tool_calls")
        assert (reply.message.content or "").strip() == "So:"
        kept = call.choices[0]
        assert (called(kept.message["tool_calls"]), kept.finish_reason) == (CALLS, "tool_calls")
        assert len({one["id"] for one in kept.message["tool_calls"]}) == 2

    async def test_streamed_tool_calls_are_the_same(self, door: Door) -> None:
        async with door.openai.chat.completions.stream(**ASKED) as stream:
            reply = (await stream.get_final_completion()).choices[0]
        call = door.call("/v1/chat/completions", streamed=True)
        assert (called(reply.message.tool_calls), reply.finish_reason) == (CALLS, "tool_calls")
        assert (reply.message.content or "").strip() == "So:"
        assert called(call.choices[0].message["tool_calls"]) == CALLS

    async def test_calls_that_may_not_be_parallel_are_one(self, door: Door) -> None:
        reply = await door.openai.chat.completions.create(**ASKED, parallel_tool_calls=False)
        call = door.call("/v1/chat/completions")
        assert called(reply.choices[0].message.tool_calls) == CALLS[:1] == called(call.choices[0].message["tool_calls"])

    async def test_without_a_choice_of_tools_the_text_stays(self, door: Door) -> None:
        asked = ASKED | {"max_tokens": 60}
        reply = (await door.openai.chat.completions.create(**asked, tool_choice="none")).choices[0]
        door.call("/v1/chat/completions")
        assert (reply.message.tool_calls or None, reply.finish_reason) == (None, "length")
        assert (reply.message.content or "").startswith("So: <tool_call>")

    async def test_a_streamed_message_uses_tools(self, door: Door) -> None:
        asked: Any = {"model": "tiny", "messages": ASKED["messages"], "max_tokens": 200}
        asked |= {"extra_body": {"temperature": 0}, "tools": [{"name": "add", "input_schema": SCHEMA}]}
        async with door.claude.messages.stream(**asked) as stream:
            reply = await stream.get_final_message()
        call = door.call("/v1/messages", streamed=True)
        used = [(block.name, block.input) for block in reply.content if block.type == "tool_use"]
        assert (used, reply.stop_reason) == (CALLS, "tool_use")
        assert called(call.choices[0].message["tool_calls"]) == CALLS

    async def test_a_streamed_response_calls_functions(self, door: Door) -> None:
        tool = {"type": "function"} | TOOL["function"]
        asked: Any = {"model": "tiny", "input": QUESTION, "tools": [tool], "max_output_tokens": 200, "temperature": 0}
        async with door.openai.responses.stream(**asked) as stream:
            reply = await stream.get_final_response()
        call = door.call("/v1/responses", streamed=True)
        made = [(item.name, json.loads(item.arguments)) for item in reply.output if item.type == "function_call"]
        assert (made, reply.status) == (CALLS, "completed")
        assert called(call.choices[0].message["tool_calls"]) == CALLS

    @pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_forced_tool_call_has_the_tools_form(self, door: Door, choice: Any, streamed: bool) -> None:
        asked: Any = ASKED | {"messages": [{"role": "user", "content": "Say what you like"}]}
        asked |= {"tool_choice": choice, "parallel_tool_calls": False, "extra_body": {"logit_bias": NO_BLANKS}}
        if door.kind == "transformers":
            with pytest.raises(openai.BadRequestError, match="not supported"):
                await door.openai.chat.completions.create(**asked)
            return
        if streamed:
            async with door.openai.chat.completions.stream(**asked) as stream:
                reply = (await stream.get_final_completion()).choices[0]
        else:
            reply = (await door.openai.chat.completions.create(**asked)).choices[0]
        call = door.call("/v1/chat/completions", streamed=streamed, forced=True)
        (made,) = called(reply.message.tool_calls)
        assert made in CALLS
        assert called(call.choices[0].message["tool_calls"]) == [made]

    async def test_an_answer_by_a_json_schema_has_its_form(self, door: Door) -> None:
        form: Any = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA, "strict": True}}
        asked: Any = {"model": "tiny", "messages": ASKED["messages"], "max_tokens": 60, "response_format": form}
        asked["extra_body"] = {"logit_bias": NO_BLANKS}
        if door.kind == "transformers":
            with pytest.raises(openai.BadRequestError, match="not supported"):
                await door.openai.chat.completions.create(**asked)
            return
        reply = await door.openai.chat.completions.create(**asked)
        call = door.call("/v1/chat/completions", forced=True)
        assert json.loads(reply.choices[0].message.content or "") in ({"a": 1}, {"a": 2})
        assert tokens_of(call)
