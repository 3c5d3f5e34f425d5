"""Anthropic's clients as they are: threads, tools that clients run, tools that are loaded late."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anthropic
import httpx
import orjson
import pytest
from aiohttp import web
from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient, beta_async_tool
from anthropic.types.beta import message_count_tokens_params as count
from anthropic.types.beta import message_create_params as create
from hypothesis import given
from hypothesis import strategies as st

from leyden.gateway.core.faces.messages_request import ENGINES, KNOWN, SAME, SERVER_STATE, chat_request
from leyden.gateway.core.refusals import Refusal
from service.gateway.gateway_fakes import API_KEY, Bench
from service.gateway.gateway_scripts import Says, tool_call

HELLO: Any = [{"role": "user", "content": "Say hi"}]
ASK: dict[str, Any] = {"model": "policy", "max_tokens": 9, "messages": HELLO}


@pytest.fixture
async def claude(gate: Bench) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        base_url=gate.url, api_key=API_KEY, max_retries=0, http_client=DefaultAsyncHttpxClient(trust_env=False)
    ) as client:
        yield client


async def test_a_thread_is_refused_in_the_form_that_the_sdk_knows(gate: Bench, http: httpx.AsyncClient) -> None:
    told = await http.post("/v1/messages", json=ASK | {"thread": {"type": "continue", "previous_message_id": "msg_1"}})
    body = told.json()
    assert (told.status_code, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
    assert body["error"]["details"] == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    assert body["request_id"] == told.headers["request-id"]
    assert (gate.engine.bodies, gate.log.calls) == ([], [])


async def test_the_sdks_tool_runner_sends_every_message(gate: Bench, claude: AsyncAnthropic) -> None:
    @beta_async_tool
    async def weather(city: str) -> str:
        """The weather of a city."""
        return f"rain in {city}"

    async def engine(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if body["messages"][-1]["role"] == "tool":
            return await Says("It rains.")(request, body)
        calls = [tool_call("c1", "weather", '{"city": "Oslo"}')]
        return await Says(None, calls, finish="tool_calls")(request, body)

    gate.engine.reply = engine
    runner = claude.beta.messages.tool_runner(
        model="policy", max_tokens=9, tools=[weather], messages=[{"role": "user", "content": "Oslo?"}]
    )
    final = await runner.until_done()
    assert [block.text for block in final.content if block.type == "text"] == ["It rains."]
    assert [[message["role"] for message in body["messages"]] for body in gate.engine.bodies] == [
        ["user"], ["user", "assistant", "tool"],
    ]  # fmt: skip
    assert gate.engine.bodies[1]["messages"][2]["content"] == "rain in Oslo"
    assert [call.error for call in gate.log.calls] == [None, None]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("container", "container_1"), ("mcp_servers", [{"type": "url", "url": "http://x", "name": "x"}]),
        ("compaction", {"type": "summary"}), ("a_field_of_next_year", 1),
    ],
)  # fmt: skip
async def test_what_is_kept_elsewhere_is_refused_by_its_name(
    gate: Bench, claude: AsyncAnthropic, name: str, value: Any
) -> None:
    with pytest.raises(anthropic.BadRequestError, match=f"{name}: "):
        await claude.messages.create(**ASK, extra_body={name: value})
    with pytest.raises(anthropic.BadRequestError, match=name):
        await claude.messages.count_tokens(model="policy", messages=HELLO, extra_body={name: value})
    assert gate.engine.bodies == []


@pytest.mark.parametrize("name", SERVER_STATE)
async def test_what_is_empty_means_nothing(gate: Bench, claude: AsyncAnthropic, name: str) -> None:
    for empty in (None, [], {}):
        await claude.messages.create(**ASK, extra_body={name: empty})
    assert not any(name in body for body in gate.engine.bodies)


def test_every_field_of_the_sdk_is_decided() -> None:
    """A field that the next SDK adds needs a decision: translated, without effect, or kept on servers."""
    fields: set[str] = set()
    for params in (create.MessageCreateParamsBase, create.MessageCreateParamsStreaming, count.MessageCountTokensParams):
        fields |= params.__annotations__.keys()
    assert len(fields) > 20
    assert fields <= KNOWN


@given(
    st.text(min_size=1, max_size=20) | st.sampled_from(sorted(KNOWN - {"messages"})),
    st.none() | st.integers() | st.text(max_size=5) | st.just({"id": "x"}),
)
def test_no_other_field_reaches_an_engine(name: str, value: Any) -> None:
    body = ASK | {name: value}
    if name not in KNOWN:
        with pytest.raises(Refusal, match="unknown field") as refused:
            chat_request(body)
        assert (refused.value.status, refused.value.param) == (400, name)
    elif name not in ENGINES:
        with suppress(Refusal):  # an invalid value
            assert name not in chat_request(body) or name in SAME


BASH = {"type": "bash_20250124", "name": "bash"}
EDITOR = {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 1000}
MEMORY = {"type": "memory_20250818", "name": "memory"}


async def test_tools_that_clients_run_are_functions_with_their_documented_input(
    gate: Bench, claude: AsyncAnthropic
) -> None:
    gate.engine.reply = Says(None, [tool_call("c1", "bash", '{"command": "ls"}')], finish="tool_calls")
    reply: Any = await claude.beta.messages.create(**ASK, tools=[BASH, EDITOR, MEMORY])  # type: ignore[list-item]
    assert [(block.type, block.name, block.input) for block in reply.content] == [
        ("tool_use", "bash", {"command": "ls"})
    ]
    functions = [tool["function"] for tool in gate.engine.bodies[0]["tools"]]
    assert [one["name"] for one in functions] == ["bash", "str_replace_based_edit_tool", "memory"]
    shown = [set(one["parameters"]["properties"]) for one in functions]
    edits = {"command", "path", "file_text", "old_str", "new_str", "insert_line", "insert_text", "view_range"}
    assert shown == [{"command", "restart"}, edits, edits | {"old_path", "new_path"}]
    screen = {"type": "computer_20250124", "name": "computer", "display_width_px": 9, "display_height_px": 9}
    with pytest.raises(anthropic.BadRequestError, match="computer_20250124"):
        await claude.beta.messages.create(**ASK, tools=[screen])  # type: ignore[list-item]


LATE: dict[str, Any] = {
    "name": "rates", "description": "Exchange rates.", "input_schema": {"type": "object"}, "defer_loading": True
}  # fmt: skip
SEARCH: dict[str, Any] = {"name": "find_tools", "input_schema": {"type": "object"}}


def found(*names: str) -> list[Any]:
    result = [{"type": "tool_reference", "tool_name": name} for name in names]
    return [
        {"role": "user", "content": "Rates?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "find_tools", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": result}]},
    ]


async def test_a_tool_that_is_loaded_late_is_shown_where_it_is_referred_to(gate: Bench, claude: AsyncAnthropic) -> None:
    tools: Any = [SEARCH, LATE]
    await claude.messages.create(model="policy", max_tokens=9, messages=found()[:1], tools=tools)
    await claude.messages.create(model="policy", max_tokens=9, messages=found("rates"), tools=tools)
    first, second = gate.engine.bodies
    assert [tool["function"]["name"] for tool in first["tools"]] == ["find_tools"]
    assert first["tools"] == second["tools"]
    assert first["messages"] == second["messages"][:1]
    shown = orjson.loads(second["messages"][-1]["content"])
    assert shown == {name: LATE[name] for name in ("name", "description", "input_schema")}
    with pytest.raises(anthropic.BadRequestError, match="names 'other', which is not in `tools`"):
        await claude.messages.create(model="policy", max_tokens=9, messages=found("other"), tools=tools)


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_without_an_id_get_their_own(gate: Bench, claude: AsyncAnthropic, stream: bool) -> None:
    calls = [tool_call(None, "look", "{}"), tool_call(None, "look", '{"a":1}')]  # type: ignore[arg-type]
    gate.engine.reply = Says(None, calls, finish="tool_calls")
    if stream:
        async with claude.messages.stream(**ASK) as opened:
            reply: Any = await opened.get_final_message()
    else:
        reply = await claude.messages.create(**ASK)
    recorded: Any = gate.log.calls[0].choices[0].message["tool_calls"]
    assert [block.input for block in reply.content] == [{}, {"a": 1}]
    assert [block.id for block in reply.content] == [call["id"] for call in recorded]
    assert len({block.id for block in reply.content}) == 2


async def test_the_request_id_that_a_client_shows_is_the_calls_id(gate: Bench, claude: AsyncAnthropic) -> None:
    plain = await claude.messages.create(**ASK)
    async with claude.messages.stream(**ASK) as stream:
        await stream.get_final_message()
        streamed = stream.request_id
    assert [plain._request_id, streamed] == [call.call_id for call in gate.log.calls]
