"""The model API, by the official OpenAI client, on a scripted engine."""

import asyncio

import httpx
import numpy as np
import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI

from leyden.events import Task, unpack_floats, unpack_ints
from leyden.gateway.core.keys import rollout_key
from leyden.gateway.core.rollouts import RolloutSpec, Running
from leyden.ids import AttemptRef
from service.gateway.gateway_fakes import API_KEY, REF, SECRET, START, Bench, bench

HELLO = [{"role": "user", "content": "Say hi"}]


async def begin(gate: Bench, mode: str = "train", ref: AttemptRef = REF) -> None:
    task = Task.model_validate({"task_id": "t", "mode": mode})
    await gate.store.begin(Running(ref, RolloutSpec(task=task, group_id="g"), START), START)


async def test_plain_call_is_answered_and_recorded_with_tokens(gate: Bench, agent: AsyncOpenAI) -> None:
    reply = await agent.chat.completions.create(model="policy", messages=HELLO)
    assert (reply.choices[0].message.content, reply.model) == ("Hi!", "policy@3")
    (call,) = gate.log.calls
    assert unpack_ints(call.prompt_token_ids).tolist() == [1, 2, 3]
    assert unpack_ints(call.choices[0].token_ids).tolist() == [7, 8]
    assert unpack_floats(call.choices[0].logprobs).tolist() == [-0.5, -0.25]
    assert (call.policy, call.policy_version, call.requested_model, call.error) == ("policy", 3, "policy", None)
    assert (call.usage.prompt_tokens, call.usage.completion_tokens, call.streamed) == (3, 2, False)
    assert (call.rollout_id, call.event_time) == (None, START)


async def test_the_engine_is_asked_for_everything_and_the_caller_sees_only_what_it_asked(
    gate: Bench, agent: AsyncOpenAI
) -> None:
    raw = await agent.chat.completions.with_raw_response.create(model="policy", messages=HELLO, extra_body={"odd": [1]})
    sent = gate.engine.bodies[0]
    assert (sent["model"], sent["return_token_ids"], sent["logprobs"], sent["odd"]) == ("served-name", True, True, [1])
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["min_p"]) == (1.0, 1.0, 0, 0.0)
    body = raw.http_response.json()
    assert set(body) == {"id", "object", "created", "model", "choices", "usage"}
    assert set(body["choices"][0]) == {"index", "message", "logprobs", "finish_reason"}
    assert body["choices"][0]["logprobs"] is None
    assert raw.headers["x-leyden-policy-version"] == "policy@3"


async def test_a_caller_who_asks_for_logprobs_and_ids_gets_them(gate: Bench, agent: AsyncOpenAI) -> None:
    reply = await agent.chat.completions.create(
        model="policy", messages=HELLO, logprobs=True, extra_body={"return_token_ids": True}
    )
    assert reply.choices[0].logprobs is not None
    assert reply.model_extra is not None
    assert reply.model_extra["prompt_token_ids"] == [1, 2, 3]


async def test_streamed_call_is_recorded_whole_and_its_usage_chunk_hidden(gate: Bench, agent: AsyncOpenAI) -> None:
    stream = await agent.chat.completions.create(model="policy", messages=HELLO, stream=True)
    seen = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in seen) == "Hi!"
    assert {chunk.model for chunk in seen} == {"policy@3"}
    assert all(chunk.usage is None and chunk.choices[0].logprobs is None for chunk in seen)
    (call,) = gate.log.calls
    assert unpack_ints(call.prompt_token_ids).tolist() == [1, 2, 3]
    assert unpack_ints(call.choices[0].token_ids).tolist() == [7, 8]
    assert unpack_floats(call.choices[0].logprobs).dtype == np.float32
    assert call.choices[0].message == {"role": "assistant", "content": "Hi!"}
    assert (call.choices[0].finish_reason, call.usage.completion_tokens, call.streamed) == ("stop", 2, True)
    assert call.time_to_first_token_s is not None


async def test_a_usage_chunk_that_was_asked_for_comes(agent: AsyncOpenAI) -> None:
    stream = await agent.chat.completions.create(
        model="policy", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    last = [chunk async for chunk in stream][-1]
    assert last.usage is not None
    assert last.usage.total_tokens == 5


async def test_chunks_leave_when_they_come_and_the_last_waits_for_the_log(gate: Bench, agent: AsyncOpenAI) -> None:
    await begin(gate)
    gate.engine.hold.clear()
    gate.log.acknowledging.clear()
    stream = await agent.with_options(base_url=f"{gate.url}/rollouts/{REF.trace_id}/v1").chat.completions.create(
        model="policy", messages=HELLO, stream=True
    )
    source = aiter(stream)
    first = await asyncio.wait_for(anext(source), 5)
    assert first.choices[0].delta.role == "assistant"
    gate.engine.hold.set()
    assert (await asyncio.wait_for(anext(source), 5)).choices[0].delta.content == "Hi"
    last = asyncio.ensure_future(anext(source))
    await asyncio.sleep(0.2)
    assert not last.done()
    assert gate.log.calls == [] and gate.store.calls == {}
    gate.log.acknowledging.set()
    assert (await asyncio.wait_for(last, 5)).choices[0].finish_reason == "stop"
    assert gate.store.calls == {REF: {gate.log.calls[0].call_id}}


async def test_a_plain_reply_waits_for_the_log_and_the_list(gate: Bench, agent: AsyncOpenAI) -> None:
    gate.log.acknowledging.clear()
    calling = asyncio.ensure_future(agent.chat.completions.create(model="policy", messages=HELLO))
    await asyncio.sleep(0.2)
    assert not calling.done()
    gate.log.acknowledging.set()
    await asyncio.wait_for(calling, 5)


@pytest.mark.parametrize("binding", ["url", "url_without_attempt", "key", "traceparent"])
async def test_a_call_is_bound_without_touching_the_agent(gate: Bench, agent: AsyncOpenAI, binding: str) -> None:
    await begin(gate)
    span = "ab" * 8
    client, headers = agent, {}
    if binding == "url":
        client = agent.with_options(base_url=f"{gate.url}/rollouts/{REF.trace_id}/v1")
    elif binding == "url_without_attempt":
        client = agent.with_options(base_url=f"{gate.url}/rollouts/{REF.rollout_id}/v1")
    elif binding == "key":
        client = agent.with_options(api_key=rollout_key(SECRET.encode(), REF))
    else:
        headers = {"traceparent": f"00-{REF.trace_id}-{span}-01"}
    await client.chat.completions.create(model="policy", messages=HELLO, extra_headers=headers)
    (call,) = gate.log.calls
    assert (call.rollout_id, call.attempt, call.trace_id) == (REF.rollout_id, 0, REF.trace_id)
    assert call.parent_span_id == (span if binding == "traceparent" else None)
    assert gate.log.published[0].key == REF.rollout_id
    assert gate.store.calls == {REF: {call.call_id}}


@pytest.mark.parametrize(
    "headers",
    [
        {"x-leyden-agent": "planner", "x-leyden-agent-role": "lead"},
        {"baggage": "tenant=7,gen_ai.agent.name=planner,leyden.agent.role=lead"},
    ],
)
async def test_the_agent_that_calls_is_recorded_and_the_engine_is_not_told(
    gate: Bench, agent: AsyncOpenAI, headers: dict[str, str]
) -> None:
    await agent.chat.completions.create(model="policy", messages=HELLO, extra_headers=headers)
    (call,) = gate.log.calls
    assert (call.agent_name, call.agent_role) == ("planner", "lead")
    assert not {"x-leyden-agent", "x-leyden-agent-role", "baggage"} & set(gate.engine.headers[0])


async def test_a_call_that_names_no_agent_is_recorded_without_one(gate: Bench, agent: AsyncOpenAI) -> None:
    await agent.chat.completions.create(model="policy", messages=HELLO)
    assert (gate.log.calls[0].agent_name, gate.log.calls[0].agent_role) == (None, None)


async def test_a_foreign_trace_leaves_the_call_unbound_but_traced(gate: Bench, agent: AsyncOpenAI) -> None:
    header = {"traceparent": f"00-{'4b' * 16}-{'cd' * 8}-01"}
    await agent.chat.completions.create(model="policy", messages=HELLO, extra_headers=header)
    (call,) = gate.log.calls
    assert (call.rollout_id, call.trace_id, call.parent_span_id) == (None, "4b" * 16, "cd" * 8)
    assert gate.log.published[0].key == call.call_id


async def test_a_call_of_an_ended_attempt_is_refused(gate: Bench, agent: AsyncOpenAI) -> None:
    await begin(gate)
    await gate.store.end(REF, b"{}", START, lease_over=False)
    client = agent.with_options(base_url=f"{gate.url}/rollouts/{REF.trace_id}/v1")
    with pytest.raises(openai.ConflictError) as refused:
        await client.chat.completions.create(model="policy", messages=HELLO)
    assert refused.value.code == "attempt_over"
    assert gate.engine.bodies == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_whose_attempt_ends_meanwhile_is_refused_and_not_listed(
    gate: Bench, agent: AsyncOpenAI, stream: bool
) -> None:
    await begin(gate)
    gate.log.acknowledging.clear()

    async def call() -> None:
        client = agent.with_options(base_url=f"{gate.url}/rollouts/{REF.trace_id}/v1")
        reply = await client.chat.completions.create(model="policy", messages=HELLO, stream=stream)
        if stream:
            _ = [chunk async for chunk in reply]  # type: ignore[union-attr]

    calling = asyncio.ensure_future(call())
    await asyncio.sleep(0.2)
    await gate.store.end(REF, b"{}", START, lease_over=False)
    gate.log.acknowledging.set()
    with pytest.raises(openai.APIError) as refused:
        await calling
    assert refused.value.code == "attempt_over"
    assert gate.store.calls == {}


async def test_an_unlogged_call_is_never_answered(gate: Bench, agent: AsyncOpenAI) -> None:
    gate.log.failures = 1
    with pytest.raises(openai.APIStatusError) as refused:
        await agent.chat.completions.create(model="policy", messages=HELLO)
    assert refused.value.status_code == 503
    assert refused.value.response.headers["retry-after"] == "1"


async def test_an_unlogged_stream_has_no_end(gate: Bench, agent: AsyncOpenAI) -> None:
    gate.log.failures = 1
    seen = []

    async def read() -> None:
        async for chunk in await agent.chat.completions.create(model="policy", messages=HELLO, stream=True):
            seen.append(chunk.choices[0].finish_reason)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(openai.APIError) as refused:
        await read()
    assert refused.value.code == "unavailable"
    assert "stop" not in seen


async def test_no_engine_is_asked_while_the_log_is_down(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.log.up = False
    reply = await http.post("/v1/chat/completions", json={"model": "policy", "messages": HELLO})
    assert (reply.status_code, gate.engine.bodies) == (503, [])


async def test_an_unlisted_call_is_never_answered(gate: Bench, http: httpx.AsyncClient) -> None:
    await begin(gate)
    gate.store.fail_at["add_call"] = 1
    url = f"/rollouts/{REF.trace_id}/v1/chat/completions"
    assert (await http.post(url, json={"model": "policy", "messages": HELLO})).status_code == 503


async def test_a_reader_who_leaves_stops_the_engine_and_is_recorded(gate: Bench, agent: AsyncOpenAI) -> None:
    await begin(gate)
    gate.engine.hold.clear()
    client = agent.with_options(base_url=f"{gate.url}/rollouts/{REF.trace_id}/v1")
    stream = await client.chat.completions.create(model="policy", messages=HELLO, stream=True)
    await anext(aiter(stream))
    await stream.close()
    await until(lambda: bool(gate.store.calls))
    (call,) = gate.log.calls
    assert call.error is not None
    assert call.error.startswith("cut_off")
    assert gate.store.calls == {REF: {call.call_id}}
    assert gate.gateway.servers.load == {}


async def test_a_plain_caller_who_leaves_is_recorded(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.engine.hold.clear()
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/v1/chat/completions", json={"model": "policy", "messages": HELLO}, timeout=0.2)
    await until(lambda: bool(gate.log.calls))
    assert (gate.log.calls[0].error or "").startswith("cut_off")
    assert gate.gateway.servers.load == {}


async def test_an_error_of_the_engine_is_passed_on_and_recorded(gate: Bench, agent: AsyncOpenAI) -> None:
    async def too_long(_: web.Request, __: object) -> web.Response:
        error = {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}
        return web.json_response(error, status=400, headers={"x-leyden-policy-version": "policy@3"})

    gate.engine.reply = too_long
    with pytest.raises(openai.BadRequestError, match="too long"):
        await agent.chat.completions.create(model="policy", messages=HELLO)
    assert gate.log.calls[0].error == "engine 400: too long"


async def test_an_engine_that_breaks_off_is_a_502_or_an_error_event(gate: Bench, agent: AsyncOpenAI) -> None:
    async def break_off(request: web.Request, _: object) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-leyden-policy-version": "policy@3"})
        await response.prepare(request)
        await response.write(b'data: {"object":"chat.completion.chunk","choices":[]}\n\n')
        return response

    gate.engine.reply = break_off
    with pytest.raises(openai.InternalServerError):
        await agent.chat.completions.create(model="policy", messages=HELLO)
    with pytest.raises(openai.APIError, match="ended early"):
        _ = [c async for c in await agent.chat.completions.create(model="policy", messages=HELLO, stream=True)]
    assert all(call.error for call in gate.log.calls)
    assert len(gate.log.calls) == 2


async def test_an_engine_that_takes_too_long_is_a_504() -> None:
    async with bench(engine_timeout_s=0.3) as gate, httpx.AsyncClient(trust_env=False) as http:
        gate.engine.hold.clear()
        reply = await http.post(
            f"{gate.url}/v1/chat/completions", json={"model": "policy"}, headers={"authorization": f"Bearer {API_KEY}"}
        )
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "engine_timeout")
        assert (gate.log.calls[0].error or "").startswith("engine_timeout")


async def test_the_engines_word_on_the_version_is_what_is_recorded(gate: Bench, agent: AsyncOpenAI) -> None:
    gate.engine.version = "policy@4"
    assert (await agent.chat.completions.create(model="policy", messages=HELLO)).model == "policy@4"
    assert gate.log.calls[0].policy_version == 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "says"), [("policy@3", "policy@4"), ("policy", "other@3"), ("policy", "")])
async def test_another_version_than_the_one_asked_for_is_a_502(
    gate: Bench, http: httpx.AsyncClient, model: str, says: str, stream: bool
) -> None:
    gate.engine.version = says
    reply = await http.post("/v1/chat/completions", json={"model": model, "messages": HELLO, "stream": stream})
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "policy_version_mismatch")
    (call,) = gate.log.calls
    assert (call.policy_version, call.choices) == (None, [])
    assert (call.error or "").startswith("policy_version_mismatch")


async def test_a_model_that_is_not_live_is_a_404_in_openais_shape(agent: AsyncOpenAI) -> None:
    for model, told in (("policy@2", "live: policy@"), ("unknown", "Served here: policy.")):
        with pytest.raises(openai.NotFoundError, match=told) as refused:
            await agent.chat.completions.create(model=model, messages=HELLO)
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


async def test_with_nothing_live_yet_the_caller_is_told_to_come_back() -> None:
    async with bench(live=False) as gate, httpx.AsyncClient(trust_env=False) as http:
        reply = await http.post(
            f"{gate.url}/v1/chat/completions", json={"model": "policy"}, headers={"authorization": f"Bearer {API_KEY}"}
        )
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")


async def test_a_replica_that_cannot_be_reached_is_passed_over(gate: Bench, agent: AsyncOpenAI) -> None:
    await gate.serve(4, "r1", "http://127.0.0.1:9")
    assert (await agent.chat.completions.create(model="policy", messages=HELLO)).model == "policy@3"
    with pytest.raises(openai.InternalServerError) as refused:
        await agent.chat.completions.create(model="policy@4", messages=HELLO)
    assert (refused.value.status_code, refused.value.code) == (503, "model_unreachable")
    assert gate.log.calls[1].error is not None


async def test_shaped_sampling_is_overridden_in_training_and_said_so(gate: Bench, agent: AsyncOpenAI) -> None:
    await begin(gate)
    client = agent.with_options(base_url=f"{gate.url}/rollouts/{REF.trace_id}/v1")
    raw = await client.chat.completions.with_raw_response.create(
        model="policy", messages=HELLO, top_p=0.9, temperature=0.7, extra_body={"top_k": 20}
    )
    assert raw.headers["x-leyden-overridden"] == "top_p,top_k"
    assert (gate.engine.bodies[0]["top_p"], gate.engine.bodies[0]["top_k"]) == (1.0, 0)
    sampling = gate.log.calls[0].sampling
    assert (sampling.top_p, sampling.top_k, sampling.temperature) == (1.0, -1, 0.7)


async def test_shaped_sampling_is_left_alone_outside_training(gate: Bench, agent: AsyncOpenAI) -> None:
    await begin(gate, "validation")
    bound = agent.with_options(base_url=f"{gate.url}/rollouts/{REF.trace_id}/v1")
    for client in (agent, bound):
        await client.chat.completions.create(model="policy", messages=HELLO, top_p=0.9)
    assert [body["top_p"] for body in gate.engine.bodies] == [0.9, 0.9]
    assert [call.sampling.top_p for call in gate.log.calls] == [0.9, 0.9]


async def test_shaped_sampling_is_refused_by_setting() -> None:
    async with bench(shaped_sampling="refuse") as gate, httpx.AsyncClient(trust_env=False) as http:
        await begin(gate)
        reply = await http.post(
            f"{gate.url}/rollouts/{REF.trace_id}/v1/chat/completions",
            json={"model": "policy", "messages": HELLO, "top_p": 0.5},
            headers={"authorization": f"Bearer {API_KEY}"},
        )
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "top_p")


async def test_keys_open_what_they_should(gate: Bench, http: httpx.AsyncClient) -> None:
    other = AttemptRef(REF.rollout_id, 1)
    cases = {
        "": 401,
        "Bearer nonsense": 401,
        f"Bearer {rollout_key(b'another secret!!', REF)}": 401,
        f"Bearer {rollout_key(SECRET.encode(), other)}": 403,
        f"Bearer {rollout_key(SECRET.encode(), REF)}": 200,
    }
    for header, status in cases.items():
        url = f"/rollouts/{REF.trace_id}/v1/chat/completions"
        reply = await http.post(url, json={"model": "policy"}, headers={"authorization": header})
        assert reply.status_code == status, header
        assert "error" in reply.json() or status == 200


async def test_bad_bodies_are_refused_and_large_ones_not_read() -> None:
    async with bench(max_body_bytes=100) as gate, httpx.AsyncClient(trust_env=False) as http:
        for body, status in ((b"{", 400), (b"[]", 400), (b"{}", 400), (b"x" * 101, 413)):
            reply = await http.post(
                f"{gate.url}/v1/chat/completions", content=body, headers={"authorization": f"Bearer {API_KEY}"}
            )
            assert reply.status_code == status
            assert reply.json()["error"]["message"]


async def test_one_call_too_many_is_a_429() -> None:
    agent_calls = 2
    async with bench(max_concurrent_calls=agent_calls) as gate, httpx.AsyncClient(trust_env=False) as http:
        gate.engine.hold.clear()
        headers = {"authorization": f"Bearer {API_KEY}"}
        url = f"{gate.url}/v1/chat/completions"
        body = {"model": "policy", "messages": HELLO, "stream": True}
        held = [asyncio.ensure_future(http.post(url, json=body, headers=headers)) for _ in range(agent_calls)]
        await until(lambda: len(gate.engine.bodies) == agent_calls)
        refused = await http.post(url, json=body, headers=headers)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        gate.engine.hold.set()
        assert [(await reply).status_code for reply in held] == [200, 200]
        assert (await http.post(url, json=body, headers=headers)).status_code == 200


async def test_models_are_listed_with_their_live_versions(agent: AsyncOpenAI) -> None:
    assert [model.id async for model in agent.models.list()] == ["policy", "policy@3"]


async def until(true: object) -> None:
    async with asyncio.timeout(5):
        while not true():  # type: ignore[operator]
            await asyncio.sleep(0.01)
