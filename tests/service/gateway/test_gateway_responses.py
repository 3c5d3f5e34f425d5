"""The Responses API, by the official OpenAI client, on a scripted engine."""

import asyncio
from typing import Any

import openai
import orjson
import pytest
from aiohttp import web
from openai import AsyncOpenAI
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

from service.gateway.gateway_engine_fake import completion, logprobs
from service.gateway.gateway_fakes import Bench

WEATHER: Any = {
    "type": "function", "name": "weather", "description": "The weather.", "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}  # fmt: skip
CALLS = [
    {"id": f"call_{i}", "type": "function", "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'}}
    for i, city in enumerate(("Oslo", "Rome"))
]
HEADERS = {"x-leyden-policy-version": "policy@3"}


class City(BaseModel):
    name: str


def says(gate: Bench, finish: str = "stop", **message: Any) -> None:
    """Have the engine answer with a message of two tokens, plain or streamed."""

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        whole = completion(body)
        whole["choices"][0] |= {"message": {"role": "assistant", "content": None} | message, "finish_reason": finish}
        if not body.get("stream"):
            return web.json_response(whole, headers=HEADERS)
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        for chunk in _chunks(whole, message, finish):
            await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    gate.engine.reply = reply


def _chunks(whole: dict[str, Any], message: dict[str, Any], finish: str) -> list[dict[str, Any]]:
    head = {n: whole[n] for n in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    calls = [call | {"index": index} for index, call in enumerate(message.get("tool_calls", ()))]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{name: message[name]} for name in ("reasoning_content", "content") if name in message]
    deltas += [{"tool_calls": [call]} for call in calls]
    chunks = [head | {"choices": [{"index": 0, "delta": d, "logprobs": None, "finish_reason": None}]} for d in deltas]
    last = {"index": 0, "delta": {}, "finish_reason": finish, "token_ids": [7, 8]}
    last["logprobs"] = logprobs(("Hi", -0.5), ("!", -0.25))
    chunks[0]["prompt_token_ids"] = whole["prompt_token_ids"]
    return [*chunks, head | {"choices": [last]}, head | {"choices": [], "usage": whole["usage"]}]


async def test_a_plain_response_is_answered_and_recorded_as_a_chat_call(gate: Bench, agent: AsyncOpenAI) -> None:
    raw = await agent.responses.with_raw_response.create(model="policy", instructions="Be kind.", input="Say hi")
    response = raw.parse()
    assert (response.output_text, response.model, response.status) == ("Hi!", "policy@3", "completed")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (3, 2, 5)
    (call,) = gate.log.calls
    assert (call.route, call.response_id, call.error) == ("/v1/responses", response.id, None)
    assert call.request["messages"] == [
        {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Say hi"}
    ]  # fmt: skip
    assert gate.engine.bodies[0]["messages"] == call.request["messages"]
    assert raw.headers["x-leyden-policy-version"] == "policy@3"
    assert raw.headers["x-request-id"] == call.call_id
    output = raw.http_response.json()["output"][0]["content"][0]
    assert (output["logprobs"], set(output)) == ([], {"type", "text", "annotations", "logprobs"})


async def test_a_streamed_response_is_read_by_the_clients_own_helper(gate: Bench, agent: AsyncOpenAI) -> None:
    says(gate, content="Hi!", reasoning_content="hm")
    async with agent.responses.stream(model="policy", input="Say hi") as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert (kinds[:2], kinds[-1]) == (["response.created", "response.in_progress"], "response.completed")
    assert (final.output_text, [item.type for item in final.output]) == ("Hi!", ["reasoning", "message"])
    (call,) = gate.log.calls
    assert (call.streamed, call.response_id, call.error) == (True, final.id, None)


@pytest.mark.parametrize("stream", [False, True])
async def test_plain_and_streamed_say_the_same(gate: Bench, agent: AsyncOpenAI, stream: bool) -> None:
    says(gate, content="So.", reasoning_content="hm", tool_calls=CALLS, finish="tool_calls")
    if stream:
        async with agent.responses.stream(model="policy", input="?", tools=[WEATHER]) as opened:
            response: Any = await opened.get_final_response()
    else:
        response = await agent.responses.create(model="policy", input="?", tools=[WEATHER])
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "function_call"]
    calls = [item for item in response.output if isinstance(item, ResponseFunctionToolCall)]
    assert [(call.call_id, call.arguments) for call in calls] == [
        ("call_0", '{"city":"Oslo"}'), ("call_1", '{"city":"Rome"}')
    ]  # fmt: skip
    assert (response.usage.input_tokens, response.id) == (3, f"resp_{gate.log.calls[0].call_id}")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_loop_gives_the_engine_back_what_it_said(gate: Bench, agent: AsyncOpenAI, stream: bool) -> None:
    says(gate, content="So.", reasoning_content="hm", tool_calls=CALLS, finish="tool_calls")
    conversation: list[Any] = [{"role": "user", "content": "?"}]
    if stream:
        async with agent.responses.stream(model="policy", input=conversation, tools=[WEATHER]) as opened:
            output: Any = (await opened.get_final_response()).output
    else:
        output = (await agent.responses.create(model="policy", input=conversation, tools=[WEATHER])).output
    conversation += [item.model_dump() for item in output]
    conversation += [
        {"type": "function_call_output", "call_id": item.call_id, "output": "rain"}
        for item in output
        if item.type == "function_call"
    ]
    await agent.responses.create(model="policy", input=conversation, tools=[WEATHER])
    said = {"role": "assistant", "content": "So.", "reasoning": "hm", "tool_calls": CALLS}
    assert gate.engine.bodies[1]["messages"][1:] == [
        said,
        {"role": "tool", "tool_call_id": "call_0", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]


async def test_structured_output_is_parsed_by_the_client(gate: Bench, agent: AsyncOpenAI) -> None:
    says(gate, content='{"name":"Oslo"}')
    response = await agent.responses.parse(model="policy", input="A city?", text_format=City)
    assert response.output_parsed == City(name="Oslo")
    form = gate.engine.bodies[0]["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == ("json_schema", "City", True)


async def test_logprobs_are_shown_to_who_includes_them(gate: Bench, agent: AsyncOpenAI) -> None:
    include: Any = ["message.output_text.logprobs"]
    response: Any = await agent.responses.create(model="policy", input="Say hi", include=include)
    assert [(p.token, p.logprob) for p in response.output[0].content[0].logprobs] == [("Hi", -0.5), ("!", -0.25)]
    async with agent.responses.stream(model="policy", input="Say hi", include=include) as stream:
        deltas = [event async for event in stream if event.type == "response.output_text.delta"]
    assert [p.token for event in deltas for p in event.logprobs] == ["Hi", "!"]


async def test_the_end_of_a_streamed_response_waits_for_its_record(gate: Bench, agent: AsyncOpenAI) -> None:
    gate.log.acknowledging.clear()
    says(gate, content="So.", tool_calls=CALLS, finish="tool_calls")
    seen: list[str] = []

    async def read() -> None:
        async for event in await agent.responses.create(model="policy", input="?", tools=[WEATHER], stream=True):
            seen.append(event.type)  # noqa: PERF401 - what came before the end counts

    reading = asyncio.ensure_future(read())
    async with asyncio.timeout(5):
        while "response.function_call_arguments.delta" not in seen:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert not {"response.function_call_arguments.done", "response.completed"} & set(seen)
    gate.log.acknowledging.set()
    await asyncio.wait_for(reading, 5)
    assert seen[-1] == "response.completed"


async def test_an_unlogged_stream_fails_and_does_not_complete(gate: Bench, agent: AsyncOpenAI) -> None:
    gate.log.failures = 1
    events = [event async for event in await agent.responses.create(model="policy", input="Say hi", stream=True)]
    error, failed = events[-2:]
    assert (error.type, failed.type) == ("error", "response.failed")
    assert failed.response.error is not None
    assert "send it again" in failed.response.error.message
    assert not [event for event in events if event.type.endswith("completed")]


async def test_an_error_of_the_engine_inside_a_stream_is_a_failed_response(gate: Bench, agent: AsyncOpenAI) -> None:
    async def break_down(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        chunk = _chunks(completion(body), {"content": "Hi"}, "stop")[1]
        await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
        await response.write(b'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n')
        return response

    gate.engine.reply = break_down
    events = [event async for event in await agent.responses.create(model="policy", input="Say hi", stream=True)]
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert events[-1].response.error.message == "out of memory"
    assert gate.log.calls[0].error == "engine: out of memory"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tools[0]"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ],
)
async def test_what_needs_openais_servers_is_a_400_that_says_so(
    gate: Bench, agent: AsyncOpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await agent.responses.create(model="policy", **({"input": "hi"} | fields))
    assert (refused.value.param, gate.engine.bodies) == (param, [])
