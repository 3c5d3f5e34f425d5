"""Models that Leyden does not train, passed on by name to another OpenAI-compatible server."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI

from service.gateway.gateway_engine_fake import ScriptedEngine, engine_server
from service.gateway.gateway_fakes import API_KEY, REF, Bench, bench
from service.gateway.gateway_servers import as_another_vendor, passed_to, status

HELLO: list[Any] = [{"role": "user", "content": "Say hi"}]


@pytest.fixture
async def vendor() -> AsyncIterator[ScriptedEngine]:
    server = ScriptedEngine()
    server.reply = as_another_vendor
    async with engine_server(server):
        yield server


@pytest.fixture
async def gate(vendor: ScriptedEngine) -> AsyncIterator[Bench]:
    rename = {"judge": "vendor/judge-2026"}
    async with bench(passed_to(vendor.url, key="sekret", rename=rename, headers={"x-team": "rl"})) as made:
        yield made


async def test_a_call_goes_out_as_it_came_and_comes_back_as_it_was(
    gate: Bench, vendor: ScriptedEngine, agent: AsyncOpenAI
) -> None:
    raw = await agent.chat.completions.with_raw_response.create(
        model="judge", messages=HELLO, top_p=0.3, extra_body={"odd": [1]}
    )
    assert vendor.bodies == [{"model": "vendor/judge-2026", "messages": HELLO, "top_p": 0.3, "odd": [1]}]
    body = raw.http_response.json()
    assert (body["model"], body["service_tier"], body["usage"]["vendor_cost"]) == ("vendor/judge-2026", "default", 0.1)
    assert body["choices"][0]["vendor_filter"] == {"hate": False}
    assert "logprobs" not in body["choices"][0]
    assert raw.headers["x-leyden-upstream"] == "other"
    assert "x-leyden-policy-version" not in raw.headers


async def test_the_server_gets_its_own_key_and_never_the_callers(vendor: ScriptedEngine, agent: AsyncOpenAI) -> None:
    await agent.chat.completions.create(model="judge", messages=HELLO)
    headers = vendor.headers[0]
    assert (headers["authorization"], headers["x-team"]) == ("Bearer sekret", "rl")
    assert API_KEY not in str(headers)


async def test_a_call_is_recorded_without_a_policy(gate: Bench, agent: AsyncOpenAI) -> None:
    client = agent.with_options(base_url=f"{gate.url}/rollouts/{REF.trace_id}/v1")
    await client.chat.completions.create(model="judge", messages=HELLO, top_p=0.3)
    (call,) = gate.log.calls
    assert (call.policy, call.policy_version, call.upstream, call.requested_model) == (None, None, "other", "judge")
    assert (call.usage.prompt_tokens, call.usage.completion_tokens, call.error) == (11, 2, None)
    assert (call.sampling.top_p, call.prompt_token_ids, call.rollout_id) == (0.3, b"", REF.rollout_id)
    assert call.choices[0].message["content"] == "fine"
    assert gate.store.calls == {REF: {call.call_id}}


@pytest.mark.parametrize("usage", [False, True])
async def test_a_stream_is_recorded_with_a_usage_that_only_who_asked_for_it_sees(
    gate: Bench, vendor: ScriptedEngine, agent: AsyncOpenAI, usage: bool
) -> None:
    asked: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    stream = await agent.chat.completions.create(model="judge-2", messages=HELLO, stream=True, **asked)
    seen = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in seen if c.choices) == "fine"
    assert any(chunk.usage for chunk in seen) is usage
    assert (seen[0].choices[0].model_extra or {})["vendor_filter"] == {"hate": False}
    assert vendor.bodies[0]["stream_options"] == {"include_usage": True}
    (call,) = gate.log.calls
    assert (call.usage.prompt_tokens, call.streamed, call.error) == (11, True, None)
    assert call.time_to_first_token_s is not None
    assert call.choices[0].message == {"role": "assistant", "content": "fine"}


async def test_a_policy_wins_over_an_upstream_of_the_same_name(vendor: ScriptedEngine) -> None:
    async with bench(passed_to(vendor.url, models=["*"])) as gate, client(gate) as http:
        for model in ("policy", "policy@3", "else"):
            reply = await http.post("/v1/chat/completions", json={"model": model, "messages": HELLO})
            assert reply.status_code == 200
        late = await http.post("/v1/chat/completions", json={"model": "policy@2", "messages": HELLO})
        assert late.status_code == 404
    assert [body["model"] for body in vendor.bodies] == ["else"]


async def test_plain_names_are_listed_after_the_policies(gate: Bench, agent: AsyncOpenAI) -> None:
    listed = [(model.id, model.owned_by) async for model in agent.models.list()]
    assert listed == [("policy", "leyden"), ("policy@3", "leyden"), ("judge", "other")]


async def test_a_model_that_no_pattern_fits_does_not_exist(agent: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await agent.chat.completions.create(model="nobody", messages=HELLO)


async def test_an_api_that_the_entry_leaves_out_is_refused(vendor: ScriptedEngine) -> None:
    async with bench(passed_to(vendor.url, apis=["chat"])) as gate, client(gate) as http:
        reply = await http.post("/v1/completions", json={"model": "judge", "prompt": "p"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "api_not_served")
        assert gate.log.calls == []


async def test_completions_go_to_the_servers_own(vendor: ScriptedEngine) -> None:
    async def complete(_: web.Request, __: dict[str, Any]) -> web.Response:
        choice = {"index": 0, "text": "and so on", "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
        return web.json_response(
            {"id": "c", "object": "text_completion", "model": "m", "choices": [choice], "usage": usage}
        )

    vendor.routes["/v1/completions"] = complete
    async with bench(passed_to(vendor.url)) as gate, client(gate) as http:
        reply = await http.post("/v1/completions", json={"model": "judge", "prompt": "p"})
        assert (reply.status_code, reply.json()["choices"][0]["text"]) == (200, "and so on")
        (call,) = gate.log.calls
        assert (call.upstream, call.usage.completion_tokens, call.error) == ("other", 3, None)
    assert vendor.bodies == [{"model": "judge", "prompt": "p"}]


async def test_embeddings_go_to_the_servers_own_and_are_recorded_with_their_usage(vendor: ScriptedEngine) -> None:
    async def embed(_: web.Request, __: dict[str, Any]) -> web.Response:
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        usage = {"prompt_tokens": 4, "total_tokens": 4}
        return web.json_response({"object": "list", "model": "m", "data": data, "usage": usage})

    vendor.routes["/v1/embeddings"] = embed
    async with bench(passed_to(vendor.url)) as gate, client(gate) as http:
        reply = await http.post("/v1/embeddings", json={"model": "judge", "input": "text"})
        assert (reply.status_code, reply.json()["data"][0]["embedding"]) == (200, [0.5, 0.25])
        (call,) = gate.log.calls
        assert (call.upstream, call.usage.prompt_tokens, call.error) == ("other", 4, None)
    assert vendor.bodies == [{"model": "judge", "input": "text"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_another_api_is_translated_to_the_servers_chat(gate: Bench, vendor: ScriptedEngine, stream: bool) -> None:
    async with client(gate) as http:
        body = {"model": "judge", "max_tokens": 9, "messages": HELLO, "stream": stream}
        reply = await http.post("/v1/messages", json=body, headers={"anthropic-version": "2023-06-01"})
        assert (reply.status_code, "fine" in reply.text or "ne" in reply.text) == (200, True)
        assert not stream or "message_stop" in reply.text
    assert vendor.bodies[0]["messages"] == HELLO
    (call,) = gate.log.calls
    assert (call.route, call.upstream, call.error) == ("/v1/messages", "other", None)


async def test_an_error_of_the_server_is_passed_on_and_recorded(
    gate: Bench, vendor: ScriptedEngine, agent: AsyncOpenAI
) -> None:
    vendor.reply = status(400, text="no such parameter")
    with pytest.raises(openai.BadRequestError, match="no such parameter"):
        await agent.chat.completions.create(model="judge", messages=HELLO)
    (call,) = gate.log.calls
    assert (call.upstream, call.error) == ("other", "engine 400: no such parameter")


async def test_a_full_upstream_is_a_503_at_once() -> None:
    vendor = ScriptedEngine()
    async with engine_server(vendor), bench(passed_to(vendor.url, max_in_flight=1)) as gate, client(gate) as http:
        vendor.hold.clear()
        body = {"model": "judge", "messages": HELLO, "stream": True}
        async with http.stream("POST", "/v1/chat/completions", json=body) as held:
            assert held.status_code == 200
            refused = await http.post("/v1/chat/completions", json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_full")
            assert refused.headers["retry-after"] == "1"
            vendor.hold.set()
            await held.aread()
        assert (await http.post("/v1/chat/completions", json=body)).status_code == 200


def client(gate: Bench) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {API_KEY}"}
    return httpx.AsyncClient(base_url=gate.url, headers=headers, trust_env=False, timeout=20)
