"""What a key limits: models, calls and tokens a minute, calls at a time; and what clients see of it."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, PermissionDeniedError, RateLimitError

from service.gateway.gateway_fakes import API_KEY, START, Bench
from service.gateway.gateway_keys import MESSAGES, call, made


async def test_a_key_for_some_models_sees_and_calls_those_only(gate: Bench, http: httpx.AsyncClient) -> None:
    key = (await made(http, models=["other*", "policy@3"]))["key"]
    async with _client(gate, key) as client:
        assert [model.id async for model in client.models.list()] == ["policy@3"]
        await client.chat.completions.create(model="policy@3", messages=MESSAGES)
        with pytest.raises(PermissionDeniedError, match=r"other\*, policy@3") as info:
            await client.chat.completions.create(model="policy", messages=MESSAGES)
        assert info.value.code == "model_not_allowed"
        with pytest.raises(PermissionDeniedError):
            await client.models.retrieve("policy")
    assert len(gate.engine.bodies) == 1


async def test_anthropics_header_carries_a_key_and_its_errors_come_in_its_shape(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    key = (await made(http, models=["other"]))["key"]
    async with httpx.AsyncClient(base_url=gate.url, trust_env=False) as plain:
        body = {"model": "policy", "max_tokens": 5, "messages": MESSAGES}
        refused = await plain.post("/v1/messages", json=body, headers={"x-api-key": key})
        unknown = await plain.post("/v1/messages", json=body, headers={"x-api-key": "x"})
        served = await plain.post("/v1/messages", json=body, headers={"x-api-key": API_KEY})
    assert (refused.status_code, refused.json()["type"], refused.json()["error"]["type"]) == (
        403,
        "error",
        "permission_error",
    )
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (401, "authentication_error")
    assert served.status_code == 200


def _client(gate: Bench, key: str, **more: Any) -> AsyncOpenAI:
    http = httpx.AsyncClient(trust_env=False)
    return AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=key, max_retries=0, http_client=http, **more)


async def test_openais_organisation_and_project_headers_change_nothing(gate: Bench) -> None:
    async with _client(gate, API_KEY, organization="org-1", project="proj-1") as client:
        await client.chat.completions.create(model="policy", messages=MESSAGES)
    (headers,) = gate.engine.headers
    assert not [name for name in headers if name.startswith("openai-") or name == "authorization"]
    assert gate.log.calls[0].project is None


async def test_requests_beyond_the_minutes_limit_are_429_with_what_openais_client_looks_for(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    key = (await made(http, requests_per_minute=2))["key"]
    first, second, third = [await call(http, key, stream=number == 1) for number in range(3)]
    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    assert [a.headers["x-ratelimit-remaining-requests"] for a in (first, second, third)] == ["1", "0", "0"]
    assert third.headers["retry-after"] == "30"
    assert third.headers["x-ratelimit-reset-requests"] == "1m0s"
    assert third.json()["error"]["code"] == "rate_limit_exceeded"
    gate.clock.set(START + timedelta(seconds=31))
    assert (await call(http, key)).status_code == 200
    async with _client(gate, key) as client:
        with pytest.raises(RateLimitError, match="2 requests a minute"):
            await client.chat.completions.create(model="policy", messages=MESSAGES)


async def test_the_tokens_that_calls_used_are_missing_to_the_next(gate: Bench, http: httpx.AsyncClient) -> None:
    key = (await made(http, tokens_per_minute=10))["key"]
    remaining = []
    for stream in (False, True, False):
        answer = await call(http, key, stream=stream)
        remaining.append((answer.status_code, answer.headers["x-ratelimit-remaining-tokens"]))
        await gate.gateway.recorder.drain()
    assert remaining == [(200, "10"), (200, "5"), (429, "0")]


async def test_a_key_has_so_many_calls_at_a_time_and_others_are_not_held_up(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    key = (await made(http, concurrency=1))["key"]
    gate.engine.hold.clear()
    held = asyncio.create_task(call(http, key, stream=True))
    while not gate.engine.bodies:
        await asyncio.sleep(0.01)
    refused = await call(http, key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "key_concurrency")
    assert refused.headers["retry-after"] == "1"
    other = asyncio.create_task(call(http, API_KEY))
    while len(gate.engine.bodies) < 2:
        await asyncio.sleep(0.01)
    gate.engine.hold.set()
    assert {(await held).status_code, (await other).status_code} == {200}
    assert (await call(http, key)).status_code == 200


async def test_keys_without_limits_ask_the_store_nothing_and_a_store_that_is_away_is_a_503(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    free = await made(http, concurrency=5)
    limited = await made(http, requests_per_minute=100)
    for key in (API_KEY, free["key"]):
        assert (await call(http, key)).status_code == 200
    assert not gate.rates.asked
    gate.rates.fail_at["take"] = 1
    assert (await call(http, limited["key"])).status_code == 503
    assert (await call(http, limited["key"])).status_code == 200
    assert dict(gate.rates.asked) == {"take": 2}, "a key without a token limit is charged nothing"
