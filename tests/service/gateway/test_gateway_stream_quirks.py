"""Streams and replies as servers really send them, through every model API."""

from typing import Any

import anthropic
import httpx
import orjson
import pytest
from aiohttp import web
from openai import AsyncOpenAI

from service.gateway.gateway_chunks import ASKS, CHAT, HEAD, MESSAGES, chunk, sends
from service.gateway.gateway_fakes import API_KEY, Bench
from service.gateway.gateway_scripts import PROMPT, VERSION_HEADERS


def calls(*deltas: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a reply with these tool-call deltas."""
    opening = chunk({"role": "assistant", "content": None}, prompt_token_ids=PROMPT)
    return [opening, *(chunk({"tool_calls": [delta]}) for delta in deltas), chunk({}, "tool_calls")]


def piece(arguments: str | None = None, name: str | None = None, **head: Any) -> dict[str, Any]:
    function = {"name": name} if name is not None else {}
    return head | {"function": function | ({"arguments": arguments} if arguments is not None else {})}


LOOKS = [("c1", "look", {"a": 1}), ("c2", "look", {"b": 2})]
QUIRKS = {
    "an index is reused by the next id": (
        [piece('{"a":1}', "look", index=0, id="c1"), piece('{"b":2}', "look", index=0, id="c2")], LOOKS,
    ),
    "the index is null": ([piece('{"a":1}', "look", index=None, id="c1")], LOOKS[:1]),
    "no index, the id in the first piece only": (
        [piece('{"', "look", id="c1"), piece('a"'), piece(":1}")], LOOKS[:1],
    ),
    "the name is repeated": (
        [piece('{"', "look", index=0, id="c1"), piece('a":1}', "look", index=0)], LOOKS[:1],
    ),
    "id and name are repeated, without an index": (
        [piece('{"', "look", id="c1"), piece('a":1}', "look", id="c1"), piece('{"b":2}', "look", id="c2")], LOOKS,
    ),
    "the index jumps": (
        [piece('{"a":1}', "look", index=7, id="c1"), piece('{"b":2}', "look", index=10**12, id="c2")], LOOKS,
    ),
    "arguments are an object": ([{"index": 0, "id": "c1", "function": {"name": "look", "arguments": {"a": 1}}}],
        LOOKS[:1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("quirk", QUIRKS)
async def test_each_api_gives_the_calls_that_were_meant(gate: Bench, agent: AsyncOpenAI, quirk: str) -> None:
    deltas, meant = QUIRKS[quirk]
    gate.engine.reply = sends(calls(*deltas))
    assert await by_chat(agent) == meant
    assert await by_responses(agent) == meant
    assert await by_messages(gate) == meant
    for call in gate.log.calls:
        said: Any = call.choices[0].message["tool_calls"]
        assert [(one["id"], one["function"]["name"], orjson.loads(one["function"]["arguments"])) for one in said] == [
            (call_id, name, arguments) for call_id, name, arguments in meant
        ]
        assert call.error is None


async def by_chat(agent: AsyncOpenAI) -> list[Any]:
    async with agent.chat.completions.stream(model="policy", messages=[{"role": "user", "content": "?"}]) as stream:
        message = (await stream.get_final_completion()).choices[0].message
    return [(c.id, c.function.name, orjson.loads(c.function.arguments)) for c in message.tool_calls or ()]


async def by_responses(agent: AsyncOpenAI) -> list[Any]:
    async with agent.responses.stream(model="policy", input="?") as stream:
        output: Any = (await stream.get_final_response()).output
    return [(c.call_id, c.name, orjson.loads(c.arguments)) for c in output if c.type == "function_call"]


async def by_messages(gate: Bench) -> list[Any]:
    transport = anthropic.DefaultAsyncHttpxClient(trust_env=False)
    async with (
        anthropic.AsyncAnthropic(base_url=gate.url, api_key=API_KEY, max_retries=0, http_client=transport) as client,
        client.messages.stream(model="policy", max_tokens=9, messages=[{"role": "user", "content": "?"}]) as stream,
    ):
        content = (await stream.get_final_message()).content
    return [(block.id, block.name, block.input) for block in content if block.type == "tool_use"]


@pytest.mark.parametrize("path", ASKS)
async def test_more_calls_than_any_agent_makes_are_an_error(gate: Bench, http: httpx.AsyncClient, path: str) -> None:
    many = [piece("{}", "look", id=f"c{number}") for number in range(2000)]
    gate.engine.reply = sends([chunk({"tool_calls": many}, prompt_token_ids=PROMPT), chunk({}, "tool_calls")])
    told = await http.post(path, json=ASKS[path] | {"model": "policy", "stream": True})
    assert "more than 1024 tool calls" in told.text
    (call,) = gate.log.calls
    assert call.error is not None and "more than 1024 tool calls" in call.error


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("choices", [[], None])
async def test_a_reply_without_choices_is_an_error_in_the_apis_shape(
    gate: Bench, http: httpx.AsyncClient, path: str, choices: Any
) -> None:
    async def empty(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        reply = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
        return web.json_response(reply | {"prompt_token_ids": PROMPT}, headers=VERSION_HEADERS)

    gate.engine.reply = empty
    told = await http.post(path, json=ASKS[path] | {"model": "policy"})
    assert (told.status_code, told.json()["error"]["type"]) == (
        502,
        "api_error" if path == MESSAGES else "server_error",
    )
    (call,) = gate.log.calls
    assert call.error is not None and "no choices" in call.error and "no choices" in told.text
    assert told.headers["request-id"] == call.call_id


@pytest.mark.parametrize("path", ASKS)
async def test_a_stream_without_choices_is_an_error_event(gate: Bench, http: httpx.AsyncClient, path: str) -> None:
    gate.engine.reply = sends([HEAD | {"choices": [], "prompt_token_ids": PROMPT}])
    told = await http.post(path, json=ASKS[path] | {"model": "policy", "stream": True})
    (call,) = gate.log.calls
    assert call.error is not None and "no choices" in call.error and "no choices" in told.text
    assert not any(sign in told.text for sign in ("[DONE]", "message_stop", "response.completed"))


SAID = [chunk({"role": "assistant", "content": ""}, prompt_token_ids=PROMPT), chunk({"content": "Hi"}, "stop")]
ENDS = {"nothing more": b"", "no blank line": b"data: [DONE]", "half a line": b"data: [DO", "half JSON": b'data: {"id'}


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("path", ASKS)
async def test_a_stream_is_whole_once_every_choice_has_its_finish_reason(
    gate: Bench, http: httpx.AsyncClient, path: str, end: str, broken: bool
) -> None:
    gate.engine.reply = sends(SAID, ENDS[end], broken)
    told = await http.post(path, json=ASKS[path] | {"model": "policy", "stream": True})
    assert any(sign in told.text for sign in ("[DONE]", "message_stop", "response.completed"))
    (call,) = gate.log.calls
    assert (call.error, call.choices[0].message["content"], call.choices[0].finish_reason) == (None, "Hi", "stop")


async def test_a_last_chunk_without_its_blank_line_counts(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.engine.reply = sends(SAID[:1], b"data: " + orjson.dumps(SAID[1]))
    told = await http.post(CHAT, json=ASKS[CHAT] | {"model": "policy", "stream": True})
    assert "[DONE]" in told.text
    assert gate.log.calls[0].choices[0].message["content"] == "Hi"
