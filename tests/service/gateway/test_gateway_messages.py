"""`/v1/messages`, by the official Anthropic client, on a scripted engine."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import orjson
import pytest
from aiohttp import web
from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient

from leyden.events import unpack_ints
from leyden.gateway.core.keys import rollout_key
from service.gateway.gateway_fakes import API_KEY, REF, SECRET, Bench, bench
from service.gateway.gateway_scripts import Says, fails, tool_call

HELLO: Any = [{"role": "user", "content": "Say hi"}]
WEATHER: Any = {
    "name": "weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture
async def claude(gate: Bench) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        base_url=gate.url, api_key=API_KEY, max_retries=0, http_client=DefaultAsyncHttpxClient(trust_env=False)
    ) as client:
        yield client


async def test_a_plain_message_is_answered_and_recorded_as_a_chat_call(gate: Bench, claude: AsyncAnthropic) -> None:
    gate.engine.reply = Says("Hi!", cached=2)
    reply = await claude.messages.create(
        model="policy",
        max_tokens=9,
        system="Be brief",
        messages=HELLO,
        stop_sequences=["END"],
        extra_body={"temperature": 0.5},
    )
    assert reply.content[0].type == "text"
    assert (reply.content[0].text, reply.model, reply.role, reply.stop_reason) == (
        "Hi!", "policy@3", "assistant", "end_turn",
    )  # fmt: skip
    assert (reply.usage.input_tokens, reply.usage.cache_read_input_tokens, reply.usage.output_tokens) == (1, 2, 2)
    (call,) = gate.log.calls
    assert call.request == {
        "model": "policy", "max_tokens": 9, "temperature": 0.5, "stop": ["END"],
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Say hi"}],
    }  # fmt: skip
    assert (call.route, call.response_id, call.error) == ("/v1/messages", reply.id, None)
    assert reply.id == f"msg_{call.call_id}"
    assert reply._request_id == call.call_id
    assert (call.sampling.temperature, call.sampling.max_tokens) == (0.5, 9)
    assert unpack_ints(call.choices[0].token_ids).tolist() == [7, 8]


async def test_a_streamed_message_has_anthropics_events_in_order(gate: Bench, claude: AsyncAnthropic) -> None:
    gate.engine.reply = Says("Hi you", reasoning="Hmm")
    stream = await claude.messages.create(model="policy", max_tokens=9, messages=HELLO, stream=True)
    seen = [event async for event in stream]
    assert [event.type for event in seen] == [
        "message_start",
        "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta", "content_block_delta", "content_block_delta",
        "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert seen[0].type == "message_start"
    assert seen[0].message.usage.input_tokens == 3
    assert seen[-2].type == "message_delta"
    assert (seen[-2].usage.output_tokens, seen[-2].delta.stop_reason) == (2, "end_turn")
    (call,) = gate.log.calls
    assert (call.streamed, call.response_id) == (True, seen[0].message.id)
    assert call.choices[0].message["content"] == "Hi you"
    assert call.request["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_are_called_and_their_results_sent_back(
    gate: Bench, claude: AsyncAnthropic, streamed: bool
) -> None:
    calls = [tool_call("c1", "weather", '{"city": "Oslo"}'), tool_call("c2", "weather", '{"city": "Rome"}')]
    gate.engine.reply = Says("Looking", calls, finish="tool_calls")
    reply = await _message(
        claude,
        streamed,
        tools=[WEATHER],
        messages=HELLO,
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    )
    assert reply.stop_reason == "tool_use"
    assert [block.model_dump(include={"type", "text", "id", "name", "input"}) for block in reply.content] == [
        {"type": "text", "text": "Looking"},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "c2", "name": "weather", "input": {"city": "Rome"}},
    ]
    assert gate.engine.bodies[0]["tools"][0]["function"]["parameters"] == WEATHER["input_schema"]
    assert (gate.engine.bodies[0]["tool_choice"], gate.engine.bodies[0]["parallel_tool_calls"]) == ("required", False)
    results: Any = [
        {"type": "tool_result", "tool_use_id": "c1", "content": "cold"},
        {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "warm"}], "is_error": False},
        {"type": "text", "text": "Go on"},
    ]
    gate.engine.reply = Says("Done")
    turns: Any = [*HELLO, {"role": "assistant", "content": reply.content}, {"role": "user", "content": results}]
    assert (await _message(claude, streamed, tools=[WEATHER], messages=turns)).content[0].text == "Done"
    assert gate.engine.bodies[1]["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Looking",
            "tool_calls": [
                tool_call("c1", "weather", '{"city":"Oslo"}'),
                tool_call("c2", "weather", '{"city":"Rome"}'),
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "cold"},
        {"role": "tool", "tool_call_id": "c2", "content": "warm"},
        {"role": "user", "content": "Go on"},
    ]


@pytest.mark.parametrize("streamed", [False, True])
async def test_arguments_that_are_no_json_do_not_stop_the_agent(
    gate: Bench, claude: AsyncAnthropic, streamed: bool
) -> None:
    gate.engine.reply = Says(None, [tool_call("c1", "weather", '{"city": "Os')], finish="tool_calls")
    reply = await _message(claude, streamed, tools=[WEATHER], messages=HELLO)
    assert reply.content[0].input == {"arguments": '{"city": "Os'}
    recorded: Any = gate.log.calls[0].choices[0].message["tool_calls"]
    assert recorded[0]["function"]["arguments"] == '{"city": "Os', "the record says what the model said"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("script", "reason", "sequence"),
    [
        (Says("a", finish="length"), "max_tokens", None),
        (Says("a", stop_reason="END"), "stop_sequence", "END"),
        (Says("a", finish="content_filter"), "refusal", None),
        (Says(None, [tool_call("c", "weather", "{}")]), "tool_use", None),
        (Says(""), "end_turn", None),
    ],
)
async def test_why_a_message_stopped(
    gate: Bench, claude: AsyncAnthropic, streamed: bool, script: Says, reason: str, sequence: str | None
) -> None:
    gate.engine.reply = script
    reply = await _message(claude, streamed, messages=HELLO, stop_sequences=["END"])
    assert (reply.stop_reason, reply.stop_sequence) == (reason, sequence)
    assert len(reply.content) == 1, "a message always has a block"


async def test_thinking_is_shown_only_where_the_model_thought(gate: Bench, claude: AsyncAnthropic) -> None:
    asked: Any = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "messages": HELLO}
    gate.engine.reply = Says("4")
    assert [block.type for block in (await _message(claude, False, **asked)).content] == ["text"]
    gate.engine.reply = Says("4", reasoning="2+2")
    reply = await _message(claude, False, **asked)
    assert [block.type for block in reply.content] == ["thinking", "text"]
    turns = [*HELLO, {"role": "assistant", "content": reply.content}, *HELLO]
    await _message(claude, False, messages=turns)
    assert gate.engine.bodies[-1]["messages"][1] == {"role": "assistant", "content": "4", "reasoning": "2+2"}
    assert "thinking" not in gate.engine.bodies[0]


async def test_pictures_are_passed_as_chat_parts(gate: Bench, claude: AsyncAnthropic) -> None:
    source = {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}
    blocks = [
        {"type": "text", "text": "What is it?"},
        {"type": "image", "source": source},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
    ]
    await _message(claude, False, messages=[{"role": "user", "content": blocks}])
    assert gate.engine.bodies[0]["messages"][0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]


async def test_a_last_message_of_the_assistant_is_continued(gate: Bench, claude: AsyncAnthropic) -> None:
    await _message(claude, False, messages=[*HELLO, {"role": "assistant", "content": "It is"}])
    sent = gate.engine.bodies[0]
    assert (sent["add_generation_prompt"], sent["continue_final_message"]) == (False, True)


async def test_tokens_are_counted_by_the_engine_and_nothing_is_recorded(gate: Bench, claude: AsyncAnthropic) -> None:
    async def tokenize(_: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"count": len(body["messages"]) * 10 + len(body["tools"]), "max_model_len": 99})

    gate.engine.routes["/tokenize"] = tokenize
    counted = await claude.messages.count_tokens(model="policy", system="S", messages=HELLO, tools=[WEATHER])
    assert counted.input_tokens == 21
    assert gate.engine.bodies[0]["model"] == "served-name"
    assert gate.log.calls == []
    gate.engine.routes.clear()
    with pytest.raises(anthropic.NotFoundError, match="cannot count tokens"):
        await claude.messages.count_tokens(model="policy", messages=HELLO)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (500, anthropic.InternalServerError, "api_error"),
    ],
)
async def test_an_engines_error_is_told_in_anthropics_shape(
    gate: Bench, claude: AsyncAnthropic, status: int, error: type[anthropic.APIStatusError], kind: str
) -> None:
    gate.engine.reply = fails(status, "the context is too long")
    with pytest.raises(error, match="the context is too long") as raised:
        await _message(claude, False, messages=HELLO)
    call_id = gate.log.calls[0].call_id
    assert raised.value.body == {
        "type": "error",
        "error": {"type": kind, "message": "the context is too long"},
        "request_id": call_id,
    }
    assert raised.value.request_id == call_id


async def test_refusals_are_told_in_anthropics_shape(gate: Bench, claude: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError) as nobody:
        await _message(claude.with_options(api_key="wrong"), False, messages=HELLO)
    assert nobody.value.request_id
    with pytest.raises(anthropic.NotFoundError, match="does not exist"):
        await _message(claude, False, messages=HELLO, model="unknown")
    with pytest.raises(anthropic.BadRequestError, match=r"messages\.0\.content\.0: blocks of type 'video'"):
        await _message(claude, False, messages=[{"role": "user", "content": [{"type": "video"}]}])
    with pytest.raises(anthropic.BadRequestError, match=r"tools\.0: .*web_search"):
        await _message(claude, False, messages=HELLO, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    gate.log.failures = 1
    with pytest.raises(anthropic.APIStatusError) as away:
        await _message(claude, False, messages=HELLO)
    assert (away.value.status_code, away.value.response.headers["retry-after"]) == (503, "1")
    assert isinstance(away.value.body, dict)
    assert away.value.body["error"]["type"] == "overloaded_error"


async def test_too_many_calls_are_a_rate_limit_error() -> None:
    async with (
        bench(max_concurrent_calls=1) as gate,
        AsyncAnthropic(
            base_url=gate.url, api_key=API_KEY, max_retries=0, http_client=DefaultAsyncHttpxClient(trust_env=False)
        ) as claude,
    ):
        gate.engine.hold.clear()
        held = asyncio.ensure_future(_message(claude, False, messages=HELLO))
        async with asyncio.timeout(5):
            while not gate.engine.bodies:
                await asyncio.sleep(0.01)
        with pytest.raises(anthropic.RateLimitError) as refused:
            await _message(claude, False, messages=HELLO)
        assert refused.value.response.headers["retry-after"] == "1"
        gate.engine.hold.set()
        await held


async def test_a_stream_that_is_not_recorded_ends_in_an_error_event(gate: Bench, claude: AsyncAnthropic) -> None:
    gate.log.failures = 1
    seen: list[str] = []

    async def read() -> None:
        stream = await claude.messages.create(model="policy", max_tokens=9, messages=HELLO, stream=True)
        async for event in stream:
            seen.append(event.type)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(anthropic.APIStatusError, match="could not be recorded"):
        await read()
    assert "message_stop" not in seen
    assert "message_delta" not in seen


async def test_an_error_in_the_middle_of_an_engines_stream_is_an_error_event(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    async def broken(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-leyden-policy-version": "policy@3"})
        await response.prepare(request)
        for chunk in [*Says("Hi").chunks(body)[:2], {"error": {"message": "out of memory", "code": 500}}]:
            await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    gate.engine.reply = broken
    reply = await http.post(
        "/v1/messages", json={"model": "policy", "max_tokens": 9, "messages": HELLO, "stream": True}
    )
    name, data = reply.text.strip().split("\n\n")[-1].split("\n")
    error = orjson.loads(data.removeprefix("data: "))
    assert (name, error["type"], error["error"]) == (
        "event: error", "error", {"type": "api_error", "message": "out of memory"},
    )  # fmt: skip
    assert gate.log.calls[0].error == "engine: out of memory"


@pytest.mark.parametrize("end", ["", "/v1"])
async def test_a_rollouts_base_url_works_with_and_without_v1(gate: Bench, claude: AsyncAnthropic, end: str) -> None:
    key = rollout_key(SECRET.encode(), REF)
    bound = claude.with_options(base_url=f"{gate.url}/rollouts/{REF.trace_id}{end}", api_key=key)
    await _message(bound, False, messages=HELLO)
    await _message(bound, True, messages=HELLO)
    assert [call.rollout_id for call in gate.log.calls] == [REF.rollout_id] * 2
    assert [model.id async for model in bound.models.list()] == ["policy", "policy@3"]


async def test_models_are_listed_in_anthropics_shape(claude: AsyncAnthropic) -> None:
    page = await claude.models.list()
    assert [(model.id, model.type, model.display_name) for model in page.data] == [
        ("policy", "model", "policy"),
        ("policy@3", "model", "policy@3"),
    ]
    assert (page.first_id, page.last_id, page.has_more) == ("policy", "policy@3", False)
    assert (await claude.models.retrieve("policy@3")).id == "policy@3"
    with pytest.raises(anthropic.NotFoundError):
        await claude.models.retrieve("policy@9")


async def _message(client: AsyncAnthropic, streamed: bool, **asked: Any) -> Any:
    asked = {"model": "policy", "max_tokens": 99} | asked
    if not streamed:
        return await client.messages.create(**asked)
    async with client.messages.stream(**asked) as stream:
        return await stream.get_final_message()
