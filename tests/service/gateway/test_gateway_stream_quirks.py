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
    return [(c.id, c.function.name, orjson.loads(c.function.arguments or "{}")) for c in message.tool_calls or ()]


async def by_responses(agent: AsyncOpenAI) -> list[Any]:
    async with agent.responses.stream(model="policy", input="?") as stream:
        output: Any = (await stream.get_final_response()).output
    return [(c.call_id, c.name, orjson.loads(c.arguments or "{}")) for c in output if c.type == "function_call"]


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


EMPTY_OBJECT = [piece("{}", "look", index=0, id="c1"), piece('{"a":1}', index=0)]
MORE_QUIRKS: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "an id of its own for every piece": (
        [piece('{"', "look", index=0, id="c1"), piece('a"', index=0, id="x"), piece(":1}", index=0, id="y")], LOOKS[:1],
    ),
    "one id for two indexes": (
        [piece('{"a":1}', "look", index=0, id="c1"), piece('{"b":2}', "look", index=1, id="c1")],
        [LOOKS[0], (None, *LOOKS[1][1:])],
    ),
    "an empty object before the text": (EMPTY_OBJECT, LOOKS[:1]),
    "the name after the arguments": ([piece('{"a"', index=0, id="c1"), piece(":1}", "look", index=0)], LOOKS[:1]),
    "the name in pieces": (
        [piece("", "lo", index=0, id="c1"), piece("", "ok", index=0), piece('{"a":1}', index=0)], LOOKS[:1],
    ),
    "name and arguments in the piece itself": (
        [{"index": 0, "id": "c1", "name": "look", "arguments": '{"a"'}, {"index": 0, "arguments": ":1}"}], LOOKS[:1],
    ),
    "no id at all": ([piece('{"a":1}', "look", index=0)], [(None, *LOOKS[0][1:])]),
    "no arguments": ([piece(None, "look", index=0, id="c1")], [("c1", "look", {})]),
}  # fmt: skip
"""What a server sends, and the calls that it meant; None for an id that it does not give."""


@pytest.mark.parametrize("quirk", MORE_QUIRKS)
async def test_each_api_gives_the_same_calls_as_the_record(gate: Bench, agent: AsyncOpenAI, quirk: str) -> None:
    deltas, meant = MORE_QUIRKS[quirk]
    gate.engine.reply = sends(calls(*deltas))
    seen = [await by_chat(agent), await by_responses(agent), await by_messages(gate)]
    for told, call in zip(seen, gate.log.calls, strict=True):
        assert [one[1:] for one in told] == [one[1:] for one in meant]
        assert all(want in (None, got) for (got, *_), (want, *_) in zip(told, meant, strict=True))
        recorded: Any = call.choices[0].message["tool_calls"]
        assert [one["id"] for one in recorded] == [one[0] for one in told]
        assert len({one["id"] for one in recorded}) == len(meant)
        assert call.error is None


FUNCTION = {"name": "look", "arguments": '{"a":1}'}
TEXT = [{"type": "text", "text": "Hi"}]
THOUGHT = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, *TEXT]
ODD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text beside the delta": ({"delta": {"content": "Hi"}, "text": ""}, {"content": "Hi"}),
    "text instead of the delta's": ({"delta": {}, "text": "Hi"}, {"content": "Hi"}),
    "a null message beside the delta": ({"delta": {"content": "Hi"}, "message": None}, {"content": "Hi"}),
    "content as a list": ({"delta": {"content": TEXT}}, {"content": "Hi"}),
    "thoughts in the content": ({"delta": {"content": THOUGHT}}, {"content": "Hi", "reasoning": "hm"}),
    "a function call": ({"delta": {"function_call": FUNCTION}}, {"calls": [("look", {"a": 1})]}),
    "a flat call": ({"delta": {"tool_calls": [{"id": "c"} | FUNCTION]}}, {"calls": [("look", {"a": 1})]}),
}
"""A choice, and what it says."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("odd", ODD)
async def test_odd_replies_say_what_they_mean_to_every_client_and_in_the_record(
    gate: Bench, http: httpx.AsyncClient, odd: str, path: str, stream: bool
) -> None:
    said, meant = ODD[odd]
    if not stream:
        said = said | {"message": {"role": "assistant"} | said["delta"], "delta": None}
    finish = "function_call" if "function_call" in str(said) else "stop"
    one = chunk({}, finish, prompt_token_ids=PROMPT)
    one["choices"][0] = {name: one["choices"][0][name] for name in one["choices"][0] if name != "delta"} | said
    gate.engine.reply = sends([one]) if stream else answers(one)
    told = await http.post(path, json=ASKS[path] | {"model": "policy", "stream": stream})
    assert told.status_code == 200, told.text
    (call,) = gate.log.calls
    message: Any = call.choices[0].message
    made = [one["function"] for one in message.get("tool_calls", ())]
    recorded = [(one["name"], orjson.loads(one["arguments"])) for one in made]
    assert (message.get("content") or None, recorded) == (meant.get("content"), meant.get("calls", []))
    assert message.get("reasoning") == meant.get("reasoning")
    for word in ("Hi" if "content" in meant else "look", *(["hm"] if "reasoning" in meant else [])):
        assert word in told.text
    assert '"function_call":' not in told.text
    assert call.error is None


def answers(reply: dict[str, Any]) -> Any:
    async def plain(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(reply | {"object": "chat.completion"}, headers=VERSION_HEADERS)

    return plain


async def test_who_asks_with_functions_gets_a_function_call_and_the_record_a_tool_call(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    legacy = ASKS[CHAT] | {"model": "policy", "functions": [{"name": "look", "parameters": {}}]}
    first = chunk({"function_call": {"name": "look", "arguments": '{"a"'}}, prompt_token_ids=PROMPT)
    gate.engine.reply = sends([first, chunk({"function_call": {"arguments": ":1}"}}, "function_call")])
    told = await http.post(CHAT, json=legacy | {"stream": True})
    assert told.text.count('"function_call":') == 2 and "tool_calls" not in told.text
    assert '"finish_reason":"function_call"' in told.text
    said: Any = gate.log.calls[0].choices[0].message
    assert [one["function"] for one in said["tool_calls"]] == [FUNCTION]


@pytest.mark.parametrize("path", ASKS)
async def test_of_two_finish_reasons_the_one_that_says_more_counts(
    gate: Bench, http: httpx.AsyncClient, path: str
) -> None:
    chunks = [*calls(piece('{"a":1}', "look", index=0, id="c1")), chunk({}, "stop")]
    gate.engine.reply = sends(chunks)
    told = await http.post(path, json=ASKS[path] | {"model": "policy", "stream": True})
    (call,) = gate.log.calls
    assert (call.choices[0].finish_reason, call.error) == ("tool_calls", None)
    assert '"finish_reason":"stop"' not in told.text and '"stop_reason":"end_turn"' not in told.text


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"Infinity"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ASKS)
async def test_a_logprob_that_is_no_number_tears_the_record_and_its_caller_gets_the_answer(
    gate: Bench, http: httpx.AsyncClient, path: str, stream: bool, number: bytes
) -> None:
    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers=VERSION_HEADERS)
        await response.prepare(request)
        one = chunk({"content": "Hi"}, "stop", prompt_token_ids=PROMPT)
        if not stream:
            one["choices"][0]["message"] = one["choices"][0].pop("delta") | {"role": "assistant"}
        raw = orjson.dumps(one).replace(b'"logprob":-0.5', b'"logprob":' + number)
        await response.write(b"data: " + raw + b"\n\ndata: [DONE]\n\n" if stream else raw)
        return response

    gate.engine.reply = reply
    told = await http.post(path, json=ASKS[path] | {"model": "policy", "stream": stream})
    assert told.status_code == 200 and "Hi" in told.text and "error" not in told.text.replace('"error":null', "")
    (call,) = gate.log.calls
    assert call.error is not None and "a logprob that is not a number" in call.error


@pytest.mark.parametrize(
    ("usage", "torn"),
    [
        ({"completion_tokens": 1}, False),
        ({"prompt_tokens": None, "completion_tokens": None}, False),
        ({"prompt_tokens": 3}, False),
        ({}, False),
        ({"completion_tokens": 2}, True),
        ({"prompt_tokens": 9, "completion_tokens": None}, True),
    ],
)
async def test_counts_that_the_engine_does_not_send_tear_nothing(
    gate: Bench, http: httpx.AsyncClient, usage: dict[str, Any], torn: bool
) -> None:
    said = chunk({"content": "Hi"}, "stop", prompt_token_ids=[1, 2, 3])
    gate.engine.reply = sends([said, HEAD | {"choices": [], "usage": usage}])
    await http.post(CHAT, json=ASKS[CHAT] | {"model": "policy", "stream": True})
    (call,) = gate.log.calls
    assert (call.error is not None) == torn
    assert call.usage.prompt_tokens == usage.get("prompt_tokens", 3) or usage.get("prompt_tokens") is None
