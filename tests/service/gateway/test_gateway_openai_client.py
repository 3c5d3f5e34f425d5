"""The model API, by the official OpenAI clients: everything that chat completions, completions and embeddings offer."""

import asyncio
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from leyden.events import Task, unpack_floats, unpack_ints
from leyden.gateway.core.rollouts import RolloutSpec, Running
from service.gateway.gateway_fakes import API_KEY, REF, START, Bench, bench
from service.gateway.gateway_scripts import Completes, Says, fails, tool_call

HELLO: Any = [{"role": "user", "content": "Say hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CALLS = [tool_call("c1", "weather", '{"city":"Oslo"}'), tool_call("c2", "weather", '{"city":"Rome"}')]


class City(BaseModel):
    name: str


@pytest.fixture
async def bound(gate: Bench, agent: AsyncOpenAI) -> AsyncOpenAI:
    task = Task.model_validate({"task_id": "t", "mode": "train"})
    await gate.store.begin(Running(REF, RolloutSpec(task=task, group_id="g"), START), START)
    return agent.with_options(base_url=f"{gate.url}/rollouts/{REF.trace_id}/v1")


async def test_every_sampling_and_format_field_reaches_the_engine(gate: Bench, agent: AsyncOpenAI) -> None:
    schema: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": City.model_json_schema()}}
    asked: dict[str, Any] = {
        "n": 2, "seed": 7, "stop": ["a", "b"], "temperature": 0.3, "max_completion_tokens": 5, "presence_penalty": 0.1,
        "frequency_penalty": 0.2, "logit_bias": {"5": -100}, "user": "u", "metadata": {"k": "v"}, "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": False,
        "response_format": schema, "top_logprobs": 2, "logprobs": True, "reasoning_effort": "low",
    }  # fmt: skip
    gate.engine.reply = Says("Hi!")
    reply = await agent.chat.completions.create(model="policy", messages=HELLO, **asked)
    sent = gate.engine.bodies[0]
    assert {name: sent[name] for name in asked} == asked
    assert [choice.index for choice in reply.choices] == [0, 1]
    (call,) = gate.log.calls
    assert [choice.index for choice in call.choices] == [0, 1]
    assert call.request == {"model": "policy", "messages": HELLO} | asked
    assert (call.sampling.seed, call.sampling.max_tokens, call.sampling.temperature) == (7, 5, 0.3)


@pytest.mark.parametrize("streamed", [False, True])
async def test_parallel_tool_calls_come_whole(gate: Bench, agent: AsyncOpenAI, streamed: bool) -> None:
    gate.engine.reply = Says(None, CALLS, finish="tool_calls")
    asked: Any = {"model": "policy", "messages": HELLO, "tools": [WEATHER], "tool_choice": "auto"}
    if streamed:
        async with agent.chat.completions.stream(**asked) as stream:
            reply = await stream.get_final_completion()
    else:
        reply = await agent.chat.completions.create(**asked)
    assert reply.choices[0].finish_reason == "tool_calls"
    made = reply.choices[0].message.tool_calls
    assert made is not None
    assert [(one.id, one.function.name, one.function.arguments) for one in made if one.type == "function"] == [
        ("c1", "weather", '{"city":"Oslo"}'),
        ("c2", "weather", '{"city":"Rome"}'),
    ]
    recorded: Any = gate.log.calls[0].choices[0].message["tool_calls"]
    assert [one["function"]["arguments"] for one in recorded] == ['{"city":"Oslo"}', '{"city":"Rome"}']


@pytest.mark.parametrize("streamed", [False, True])
async def test_logprobs_are_shown_to_whoever_asks(gate: Bench, agent: AsyncOpenAI, streamed: bool) -> None:
    gate.engine.reply = Says("Hi!")
    asked: Any = {"model": "policy", "messages": HELLO, "logprobs": True, "top_logprobs": 2}
    if streamed:
        chunks = [chunk async for chunk in await agent.chat.completions.create(**asked, stream=True)]
        shown = [one for chunk in chunks for choice in chunk.choices if choice.logprobs for one in _content(choice)]
    else:
        shown = _content((await agent.chat.completions.create(**asked)).choices[0])
    assert [(one.logprob, len(one.top_logprobs)) for one in shown] == [(-0.5, 2)] * 2
    assert unpack_floats(gate.log.calls[0].choices[0].logprobs).tolist() == [-0.5, -0.5]


async def test_several_choices_stream_side_by_side_and_end_with_their_usage(gate: Bench, agent: AsyncOpenAI) -> None:
    gate.engine.reply = Says("Hi!")
    stream = await agent.chat.completions.create(
        model="policy", messages=HELLO, n=3, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    texts = ["", "", ""]
    for choice in [choice for chunk in chunks for choice in chunk.choices]:
        texts[choice.index] += choice.delta.content or ""
    assert texts == ["Hi!"] * 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6
    (call,) = gate.log.calls
    assert [choice.message["content"] for choice in call.choices] == texts
    assert call.response_id == chunks[0].id


async def test_structured_output_is_parsed_by_the_client(gate: Bench, agent: AsyncOpenAI) -> None:
    gate.engine.reply = Says('{"name": "Oslo"}')
    reply = await agent.chat.completions.parse(model="policy", messages=HELLO, response_format=City)
    assert reply.choices[0].message.parsed == City(name="Oslo")
    assert gate.engine.bodies[0]["response_format"]["json_schema"]["strict"] is True


async def test_reasoning_passes_through(gate: Bench, agent: AsyncOpenAI) -> None:
    gate.engine.reply = Says("4", reasoning="2+2")
    reply = await agent.chat.completions.create(model="policy", messages=HELLO)
    assert (reply.choices[0].message.model_extra or {})["reasoning"] == "2+2"
    stream = await agent.chat.completions.create(model="policy", messages=HELLO, stream=True)
    _ = [chunk async for chunk in stream]
    assert gate.log.calls[1].choices[0].message["reasoning"] == "2+2"


async def test_the_synchronous_client_does_all_of_it_too(gate: Bench) -> None:
    gate.engine.reply = Says("Hi!")

    def work() -> tuple[str | None, str, str | None, list[str]]:
        with OpenAI(
            base_url=f"{gate.url}/v1", api_key=API_KEY, max_retries=0, http_client=httpx.Client(trust_env=False)
        ) as client:
            reply = client.chat.completions.create(model="policy", messages=HELLO)
            stream = client.chat.completions.create(model="policy", messages=HELLO, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return (
                reply.choices[0].message.content,
                streamed,
                reply._request_id,
                [one.id for one in client.models.list()],
            )

    plain, streamed, request_id, models = await asyncio.to_thread(work)
    assert (plain, streamed, models) == ("Hi!", "Hi!", ["policy", "policy@3"])
    assert request_id == gate.log.calls[0].call_id


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (500, openai.InternalServerError),
    ],
)
async def test_an_engines_error_has_its_class_its_words_and_the_calls_id(
    gate: Bench, agent: AsyncOpenAI, status: int, error: type[openai.APIStatusError]
) -> None:
    gate.engine.reply = fails(status, "not like that")
    with pytest.raises(error, match="not like that") as raised:
        await agent.chat.completions.create(model="policy", messages=HELLO)
    assert raised.value.request_id == gate.log.calls[0].call_id
    assert raised.value.type == "SomeError"


async def test_an_engines_error_page_is_told_in_openais_shape(gate: Bench, agent: AsyncOpenAI) -> None:
    async def page(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=400, text="<html>Bad</html>", content_type="text/html")

    gate.engine.reply = page
    with pytest.raises(openai.BadRequestError, match="Bad") as raised:
        await agent.chat.completions.create(model="policy", messages=HELLO)
    assert raised.value.code == "engine_error"


async def test_refusals_have_their_class_and_an_id(gate: Bench, agent: AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as nobody:
        await agent.with_options(api_key="wrong").chat.completions.create(model="policy", messages=HELLO)
    assert nobody.value.request_id
    with pytest.raises(openai.NotFoundError, match="no such route: /v1/images/generations"):
        await agent.images.generate(prompt="a cat")
    with pytest.raises(openai.NotFoundError):
        await agent.models.retrieve("policy@9")
    assert (await agent.models.retrieve("policy@3")).owned_by == "leyden"
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {API_KEY}"}, trust_env=False) as http:
        wrong = await http.get(f"{gate.url}/v1/v1/completions")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_too_many_calls_are_a_rate_limit_error_with_a_time() -> None:
    async with bench(max_concurrent_calls=1) as gate, httpx.AsyncClient(trust_env=False) as http:
        agent = AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=API_KEY, max_retries=0, http_client=http)
        gate.engine.hold.clear()
        held = asyncio.ensure_future(agent.chat.completions.create(model="policy", messages=HELLO))
        async with asyncio.timeout(5):
            while not gate.engine.bodies:
                await asyncio.sleep(0.01)
        with pytest.raises(openai.RateLimitError) as refused:
            await agent.chat.completions.create(model="policy", messages=HELLO)
        assert refused.value.response.headers["retry-after"] == "1"
        gate.engine.hold.set()
        await held


@pytest.mark.parametrize("base", ["", "/v1", "/v1/v1", "/rollouts/{}", "/rollouts/{}/v1"])
async def test_any_likely_base_url_works(gate: Bench, bound: AsyncOpenAI, base: str) -> None:
    client = bound.with_options(base_url=gate.url + base.format(REF.trace_id))
    assert (await client.chat.completions.create(model="policy", messages=HELLO)).choices
    assert [model.id async for model in client.models.list()] == ["policy", "policy@3"]
    assert gate.log.calls[0].rollout_id == (REF.rollout_id if "rollouts" in base else None)
    assert gate.log.calls[0].route == "/v1/chat/completions"


@pytest.mark.parametrize("prompt", ["Say hi", [5, 6, 7], [[5, 6, 7]], ["Say hi"]])
async def test_a_completion_is_recorded_with_its_tokens(gate: Bench, bound: AsyncOpenAI, prompt: Any) -> None:
    gate.engine.routes["/v1/completions"] = Completes()
    reply = await bound.completions.create(model="policy", prompt=prompt, n=2, max_tokens=4)
    assert [(choice.text, choice.logprobs) for choice in reply.choices] == [("Hi!", None)] * 2
    assert "token_ids" not in (reply.choices[0].model_extra or {})
    assert "prompt_token_ids" not in (reply.choices[0].model_extra or {})
    assert (reply.model, reply.usage and reply.usage.total_tokens) == ("policy@3", 7)
    sent = gate.engine.bodies[0]
    assert (sent["prompt"], sent["return_token_ids"], sent["logprobs"], sent["top_p"]) == (prompt, True, 0, 1.0)
    (call,) = gate.log.calls
    assert (call.route, call.response_id, call.error) == ("/v1/completions", reply.id, None)
    assert reply.id == f"cmpl-{call.call_id}"
    assert unpack_ints(call.prompt_token_ids).tolist() == [1, 2, 3]
    assert [unpack_ints(choice.token_ids).tolist() for choice in call.choices] == [[7, 8]] * 2
    assert [choice.message for choice in call.choices] == [{"role": "assistant", "content": "Hi!"}] * 2
    assert (call.rollout_id, call.policy_version, call.usage.completion_tokens) == (REF.rollout_id, 3, 4)


async def test_a_completion_streams(gate: Bench, agent: AsyncOpenAI) -> None:
    gate.engine.routes["/v1/completions"] = Completes()
    stream = await agent.completions.create(model="policy", prompt="Say hi", stream=True, logprobs=1)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hi!"
    assert chunks[0].choices[0].logprobs is not None
    assert all(chunk.usage is None for chunk in chunks)
    (call,) = gate.log.calls
    assert (call.streamed, call.choices[0].message["content"], call.error) == (True, "Hi!", None)
    assert unpack_ints(call.prompt_token_ids).tolist() == [1, 2, 3]
    assert unpack_floats(call.choices[0].logprobs).tolist() == [-0.5, -0.5]
    assert (call.usage.prompt_tokens, call.usage.completion_tokens) == (3, 2)


@pytest.mark.parametrize("wrong", [{"echo": True}, {"prompt": ["a", "b"]}, {"best_of": 3}])
async def test_what_cannot_be_trained_on_is_refused_in_training_only(
    gate: Bench, agent: AsyncOpenAI, bound: AsyncOpenAI, wrong: dict[str, Any]
) -> None:
    gate.engine.routes["/v1/completions"] = Completes()
    asked: dict[str, Any] = {"model": "policy", "prompt": "a"} | wrong
    with pytest.raises(openai.BadRequestError) as refused:
        await bound.completions.create(**asked)
    assert refused.value.param == next(iter(wrong))
    await agent.completions.create(**asked)
    assert "return_token_ids" not in gate.engine.bodies[0]
    assert gate.log.calls[0].error is None
    assert gate.log.calls[0].prompt_token_ids == b""


async def test_an_engine_without_completions_says_so(gate: Bench, agent: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not serve /v1/completions") as refused:
        await agent.completions.create(model="policy", prompt="a")
    assert refused.value.code == "api_not_served"
    assert (gate.log.calls[0].error or "").startswith("engine 404")


async def test_embeddings_are_passed_through_and_recorded_without_tokens(gate: Bench, agent: AsyncOpenAI) -> None:
    async def embed(_: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        data = [{"object": "embedding", "index": i, "embedding": [0.5, float(i)]} for i, _ in enumerate(body["input"])]
        usage = {"prompt_tokens": 4, "total_tokens": 4}
        reply = {"object": "list", "data": data, "model": body["model"], "usage": usage}
        return web.json_response(reply, headers={"x-leyden-policy-version": "policy@3"})

    gate.engine.routes["/v1/embeddings"] = embed
    reply = await agent.embeddings.create(model="policy", input=["a", "b"], encoding_format="float", dimensions=2)
    assert [one.embedding for one in reply.data] == [[0.5, 0.0], [0.5, 1.0]]
    assert gate.engine.bodies[0] == {
        "model": "served-name", "input": ["a", "b"], "encoding_format": "float", "dimensions": 2,
    }  # fmt: skip
    (call,) = gate.log.calls
    assert (call.route, call.choices, call.prompt_token_ids, call.error) == ("/v1/embeddings", [], b"", None)
    assert call.usage.prompt_tokens == 4
    gate.engine.routes.clear()
    with pytest.raises(openai.NotFoundError, match="does not serve /v1/embeddings"):
        await agent.embeddings.create(model="policy", input="a")


def _content(choice: Any) -> list[Any]:
    return list(choice.logprobs.content)
