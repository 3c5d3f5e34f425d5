"""Tools of the Responses API that clients run (function, custom, namespace), and those that they cannot."""

from collections.abc import Sequence
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from leyden.gateway.core.faces.responses_request import chat_request
from leyden.gateway.core.faces.responses_tools import custom_arguments, custom_input
from leyden.gateway.core.refusals import Refusal
from service.gateway.gateway_fakes import Bench
from service.gateway.gateway_scripts import Says, tool_call

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
LOOK: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
PATCH: Any = {
    "type": "custom", "name": "apply_patch", "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}  # fmt: skip
FILES: Any = {"type": "namespace", "name": "mcp__files__", "description": "Files.", "tools": [LOOK]}
CRM: Any = {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [LOOK, PATCH]}
CALLS = [
    tool_call("c1", "look", "{}"), tool_call("c2", "apply_patch", '{"input": "*** Begin"}'),
    tool_call("c3", "mcp__files__look", '{"a":1}'), tool_call("c4", "crm__apply_patch", "no JSON"),
]  # fmt: skip
NAMED = [
    ("function_call", "look", None, "{}"), ("custom_tool_call", "apply_patch", None, "*** Begin"),
    ("function_call", "look", "mcp__files__", '{"a":1}'), ("custom_tool_call", "apply_patch", "crm", "no JSON"),
]  # fmt: skip


def named(output: Sequence[Any]) -> list[Any]:
    return [
        (item.type, item.name, item.namespace, getattr(item, "arguments", None) or getattr(item, "input", None))
        for item in output
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_come_back_under_the_names_and_kinds_of_the_client(
    gate: Bench, agent: AsyncOpenAI, stream: bool
) -> None:
    gate.engine.reply = Says(None, CALLS, finish="tool_calls")
    asked: Any = {"model": "policy", "input": "?", "tools": [LOOK, PATCH, FILES, CRM]}
    if stream:
        events = [event async for event in await agent.responses.create(**asked, stream=True)]
        for event in events:
            EVENT.validate_python(event.to_dict())
        response: Response = events[-1].response
        said = [
            (event.item_id, event.input) for event in events if event.type == "response.custom_tool_call_input.done"
        ]
        assert said == [(item.id, item.input) for item in response.output if item.type == "custom_tool_call"]
        added = [event.item for event in events if event.type == "response.output_item.added"]
        assert [(one.id, one.type) for one in added] == [(item.id, item.type) for item in response.output]
    else:
        response = await agent.responses.create(**asked)
    assert named(response.output) == NAMED
    functions = [tool["function"] for tool in gate.engine.bodies[0]["tools"]]
    assert [one["name"] for one in functions] == [
        "look", "apply_patch", "mcp__files__look", "crm__look", "crm__apply_patch",
    ]  # fmt: skip
    assert functions[1]["parameters"]["required"] == ["input"]
    assert functions[1]["description"] == "Edits files.\n\nstart: /.+/"
    results: list[Any] = [
        {"type": item.type + "_output", "call_id": item.call_id, "output": "ok"}  # type: ignore[union-attr]
        for item in response.output
    ]
    given_back: Any = [item.to_dict() for item in response.output]
    await agent.responses.create(model="policy", input=[*given_back, *results], tools=asked["tools"])
    message, *answers = gate.engine.bodies[1]["messages"]
    again = [(call["id"], call["function"]["name"]) for call in message["tool_calls"]]
    assert again == [(call["id"], call["function"]["name"]) for call in CALLS]
    assert [(one["role"], one["tool_call_id"], one["content"]) for one in answers] == [
        ("tool", call["id"], "ok") for call in CALLS
    ]


@pytest.mark.parametrize("choice", [None, "auto", "none"])
async def test_tools_of_servers_are_left_out_and_the_header_says_so(
    gate: Bench, agent: AsyncOpenAI, choice: Any
) -> None:
    hosted: Any = [{"type": "web_search"}, LOOK, {"type": "image_generation"}, {"type": "web_search", "a": 1}]
    more = {} if choice is None else {"tool_choice": choice}
    for stream in (False, True):
        raw = await agent.responses.with_raw_response.create(
            model="policy", input="?", tools=hosted, stream=stream, **more
        )
        assert raw.headers["x-leyden-left-out"] == "web_search,image_generation"
        assert [tool["function"]["name"] for tool in gate.engine.bodies[-1]["tools"]] == ["look"]
    plain = await agent.responses.with_raw_response.create(model="policy", input="?", tools=[LOOK])
    assert "x-leyden-left-out" not in plain.headers
    with pytest.raises(openai.BadRequestError, match="'web_search' runs on OpenAI's servers"):
        await agent.responses.create(model="policy", input="?", tools=hosted, tool_choice="required")


@given(st.text(max_size=20).filter(lambda text: "]" not in text))
def test_a_custom_tools_input_survives_the_way_there_and_back(text: str) -> None:
    assert custom_input(custom_arguments(text)) == text
    assert custom_input(f"[{text}") == f"[{text}", "what is no JSON object stays as the model wrote it"


NAME = st.text("abc_", min_size=1, max_size=4)


@given(st.lists(st.tuples(st.none() | NAME, NAME, st.sampled_from(["function", "custom"])), max_size=5))
def test_no_two_tools_share_a_name_in_chat(tools: list[tuple[str | None, str, str]]) -> None:
    given_tools: list[Any] = [
        {"type": kind, "name": name}
        if group is None
        else {"type": "namespace", "name": group, "tools": [{"type": kind, "name": name}]}
        for group, name, kind in tools
    ]
    meant = [f"{group}{'' if group.endswith('__') else '__'}{name}" if group else name for group, name, _ in tools]
    body = {"model": "policy", "input": "?", "tools": given_tools}
    if len(set(meant)) < len(meant):
        with pytest.raises(Refusal, match="two tools are called"):
            chat_request(body)
        return
    called = [tool["function"]["name"] for tool in chat_request(body).get("tools", [])]
    assert called == meant
