"""Servers that begin an answer and do not finish it are set aside like those that do not answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from leyden.gateway.core.upstreams import Timeouts
from service.gateway.gateway_fakes import API_KEY, Bench, bench
from service.gateway.gateway_servers import first, passed_to

CHAT = "/v1/chat/completions"
QUICK: dict[str, Any] = {"retry_tries": 1, "circuit_failures": 3, "circuit_pause_s": 0.3}
PIECE = b'data: {"object":"chat.completion.chunk","choices":[]}\n\n'


@pytest.fixture
async def gate() -> AsyncIterator[Bench]:
    async with bench(**QUICK) as made:
        yield made


def ask(stream: bool, model: str = "policy") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}


def state(place: str = "policy/r0") -> float | None:
    return REGISTRY.get_sample_value("leyden_gateway_circuit_state", {"server": place})


async def dies(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
    """An engine whose process ends after the first piece of its answer."""
    response = await begun(request)
    assert request.transport is not None
    request.transport.abort()
    return response


async def ends_early(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
    """A stream that ends as HTTP has it, but has no `[DONE]`."""
    return await begun(request)


async def hangs(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
    await begun(request)
    await asyncio.sleep(30)
    raise AssertionError("nobody waits for so long")


async def begun(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"x-leyden-policy-version": "policy@3"})
    await response.prepare(request)
    await response.write(PIECE)
    return response


@pytest.mark.parametrize("stream", [True, False])
async def test_answers_that_break_off_open_the_circuit(gate: Bench, http: httpx.AsyncClient, stream: bool) -> None:
    gate.engine.reply = dies
    for _ in range(3):
        assert "engine_broke" in (await http.post(CHAT, json=ask(stream))).text
    assert state() == 1
    refused = await http.post(CHAT, json=ask(stream))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "circuit_open")
    assert (len(gate.engine.bodies), gate.gateway.servers.load) == (3, {})


async def test_streams_that_end_in_order_but_too_early_open_no_circuit(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.engine.reply = ends_early
    for _ in range(4):
        assert "engine_broke" in (await http.post(CHAT, json=ask(True))).text
    assert (state(), [bool(call.error) for call in gate.log.calls]) == (0, [True] * 4)


async def test_a_whole_answer_between_them_starts_the_count_anew(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.engine.reply = first(dies, dies, gate.engine.default, dies, dies, then=gate.engine.default)
    for _ in range(6):
        assert (await http.post(CHAT, json=ask(True))).status_code == 200
    assert state() == 0


async def test_streams_under_way_when_the_server_dies_count_each(gate: Bench, http: httpx.AsyncClient) -> None:
    dead = asyncio.Event()

    async def dies_later(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        response = await begun(request)
        await dead.wait()
        assert request.transport is not None
        request.transport.abort()
        return response

    gate.engine.reply = dies_later
    calls = [asyncio.ensure_future(http.post(CHAT, json=ask(True))) for _ in range(3)]
    async with asyncio.timeout(5):
        while len(gate.engine.bodies) < 3:
            await asyncio.sleep(0.01)
    dead.set()
    await asyncio.gather(*calls)
    assert (await http.post(CHAT, json=ask(True))).json()["error"]["code"] == "circuit_open"


async def test_a_trying_call_that_breaks_off_sets_the_server_aside_again(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.engine.reply = dies
    for _ in range(3):
        await http.post(CHAT, json=ask(True))
    await asyncio.sleep(0.3)
    await http.post(CHAT, json=ask(True))
    assert (state(), len(gate.engine.bodies)) == (1, 4)
    await asyncio.sleep(0.3)
    gate.engine.reply = gate.engine.default
    assert (await http.post(CHAT, json=ask(True))).status_code == 200
    gate.engine.reply = dies
    await http.post(CHAT, json=ask(True))
    assert state() == 0, "after a whole answer the count begins anew"


async def test_who_leaves_a_stream_says_nothing_about_the_server(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.engine.reply = hangs
    for _ in range(4):
        async with http.stream("POST", CHAT, json=ask(True)) as reply:
            assert reply.status_code == 200
    async with asyncio.timeout(5):
        while gate.gateway.servers.load:
            await asyncio.sleep(0.01)
    assert state() == 0


async def test_a_long_answer_that_meets_a_limit_here_says_nothing_either() -> None:
    async def floods(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        response = await begun(request)
        while True:
            await response.write(PIECE * 1000)

    slow = Timeouts(1.0, None, 0.3)
    async with bench(retry_tries=1, circuit_failures=1) as gate, bench() as other:
        headers = {"authorization": f"Bearer {API_KEY}"}
        async with httpx.AsyncClient(base_url=gate.url, headers=headers, trust_env=False, timeout=20) as http:
            gate.engine.reply = floods
            assert "longer than" in (await http.post(CHAT, json=ask(False))).text
            assert state() == 0
        other.engine.reply = hangs
        async with (
            bench(passed_to(other.engine.url, slow), retry_tries=1, circuit_failures=1) as passing,
            httpx.AsyncClient(base_url=passing.url, headers=headers, trust_env=False, timeout=20) as http,
        ):
            assert "engine_timeout" in (await http.post(CHAT, json=ask(True, "judge"))).text
            assert state("other") == 0
