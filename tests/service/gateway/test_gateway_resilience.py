"""What becomes of calls when servers refuse, hang, are overloaded or break off: on real sockets."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from leyden.gateway.core.upstreams import Timeouts
from service.gateway.gateway_engine_fake import ScriptedEngine, engine_server
from service.gateway.gateway_fakes import API_KEY, Bench, bench
from service.gateway.gateway_servers import as_another_vendor, first, passed_to, raw_server, status

HELLO: list[Any] = [{"role": "user", "content": "Say hi"}]
CHAT = "/v1/chat/completions"
QUICK: dict[str, Any] = {"retry_base_s": 0.01, "retry_cap_s": 0.02}
NOBODY = "http://127.0.0.1:9"


def client(gate: Bench) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {API_KEY}"}
    return httpx.AsyncClient(base_url=gate.url, headers=headers, trust_env=False, timeout=20)


def ask(model: str = "policy", stream: bool = False) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, "stream": stream}


def counted(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"leyden_gateway_{metric}_total", labels) or 0.0


@pytest.fixture
async def second() -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine()
    async with engine_server(engine):
        yield engine


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_says_not_now_is_asked_again(code: int, stream: bool) -> None:
    async with bench(**QUICK) as gate, client(gate) as http:
        retries = counted("retries", target="policy", reason=f"status_{code}")
        gate.engine.reply = first(status(code), status(code), then=gate.engine.default)
        assert (await http.post(CHAT, json=ask(stream=stream))).status_code == 200
        assert len(gate.engine.bodies) == 3
        assert counted("retries", target="policy", reason=f"status_{code}") == retries + 2
        (call,) = gate.log.calls
        assert call.error is None
        assert gate.gateway.servers.load == {}


async def test_after_the_last_try_the_servers_answer_is_passed_on_with_its_retry_after() -> None:
    async with bench(**QUICK, retry_tries=3) as gate, client(gate) as http:
        gate.engine.reply = status(429, {"retry-after": "0"}, "slow down")
        reply = await http.post(CHAT, json=ask())
        assert (reply.status_code, reply.headers["retry-after"], len(gate.engine.bodies)) == (429, "0", 3)
        assert reply.json()["error"]["message"] == "slow down"
        (call,) = gate.log.calls
        assert call.error == "engine 429: slow down"


async def test_a_retry_after_is_waited_for_and_a_long_one_is_the_callers_to_wait_for() -> None:
    async with bench(**QUICK, retry_after_cap_s=1.0) as gate, client(gate) as http:
        gate.engine.reply = first(status(503, {"retry-after": "0.3"}), then=gate.engine.default)
        started = time.perf_counter()
        assert (await http.post(CHAT, json=ask())).status_code == 200
        assert time.perf_counter() - started >= 0.3
        gate.engine.reply = status(429, {"retry-after": "60"})
        reply = await http.post(CHAT, json=ask())
        assert (reply.status_code, reply.headers["retry-after"], len(gate.engine.bodies)) == (429, "60", 3)


@pytest.mark.parametrize("code", [400, 404, 500, 502])
async def test_no_other_error_is_tried_again(code: int) -> None:
    async with bench(**QUICK) as gate, client(gate) as http:
        gate.engine.reply = status(code)
        assert (await http.post(CHAT, json=ask())).status_code == code
        assert len(gate.engine.bodies) == 1


async def test_another_replica_is_asked_at_once(second: ScriptedEngine) -> None:
    async with bench(retry_base_s=30.0, retry_cap_s=30.0) as gate, client(gate) as http:
        await gate.serve(3, "r1", second.url)
        gate.engine.reply = status(503, {"retry-after": "30"})
        for _ in range(3):
            assert (await http.post(CHAT, json=ask())).status_code == 200
        assert (len(second.bodies), gate.gateway.servers.load) == (3, {})


async def test_a_server_that_comes_back_is_found_again() -> None:
    server = ScriptedEngine()
    server.reply = as_another_vendor
    async with engine_server(server):
        port = server.url.rpartition(":")[2]
    async with bench(passed_to(server.url), retry_tries=20, circuit_failures=99) as gate, client(gate) as http:
        asking = asyncio.ensure_future(http.post(CHAT, json=ask("judge")))
        await asyncio.sleep(0.1)
        async with again(server, int(port)):
            assert (await asking).status_code == 200


async def test_an_unreachable_upstream_is_a_503_that_names_no_address() -> None:
    async with bench(passed_to(NOBODY), **QUICK) as gate, client(gate) as http:
        reply = await http.post(CHAT, json=ask("judge"))
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_unreachable")
        assert "127.0.0.1" not in reply.text
        assert reply.headers["retry-after"]
        (call,) = gate.log.calls
        assert (call.upstream, (call.error or "")[:17]) == ("other", "model_unreachable")


async def test_a_connection_that_breaks_before_the_answer_is_tried_once_more_and_no_oftener() -> None:
    asked = 0

    async def slam(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1

    async with raw_server(slam) as url, bench(passed_to(url), **QUICK) as gate, client(gate) as http:
        reply = await http.post(CHAT, json=ask("judge"))
        assert (reply.status_code, reply.json()["error"]["code"], asked) == (502, "engine_broke", 2)
        assert len(gate.log.calls) == 1


async def test_a_server_that_hangs_is_left_at_the_first_bytes_deadline() -> None:
    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    timeouts = Timeouts(1.0, 0.3, 10.0)
    async with raw_server(hang) as url, bench(passed_to(url, timeouts), **QUICK) as gate, client(gate) as http:
        started = time.perf_counter()
        reply = await http.post(CHAT, json=ask("judge"))
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "engine_timeout")
        assert time.perf_counter() - started < 2
        assert len(gate.log.calls) == 1


async def test_a_stream_whose_first_byte_does_not_come_is_left_too_and_a_slow_one_is_not() -> None:
    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        await writer.drain()
        if b"x-slow" in head:
            for piece in (b'data: {"object":"c","choices":[{"index":0,"delta":{}}]}\n\n', b"", b"data: [DONE]\n\n"):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.25)
        else:
            await reader.read()

    timeouts = Timeouts(1.0, 0.3, 10.0)
    async with raw_server(stream) as url:
        for headers, code in ({"x-slow": "1"}, None), ({"x-other": "1"}, "engine_timeout"):
            async with bench(passed_to(url, timeouts, headers=headers)) as gate, client(gate) as http:
                reply = await http.post(CHAT, json=ask("judge", stream=True))
                assert ("engine_timeout" in reply.text) is (code is not None)
                assert ("[DONE]" in reply.text) is (code is None)


async def test_the_total_time_bounds_all_tries_together() -> None:
    knobs: dict[str, Any] = {"retry_tries": 1000, "retry_base_s": 0.1, "retry_cap_s": 0.2, "circuit_failures": 1000}
    async with bench(engine_timeout_s=0.6, **knobs) as gate:
        gate.engine.reply = status(503)
        async with client(gate) as http:
            started = time.perf_counter()
            assert (await http.post(CHAT, json=ask())).status_code == 503
            assert time.perf_counter() - started < 2
        assert 2 <= len(gate.engine.bodies) < 100


async def test_a_stream_that_breaks_off_is_not_begun_again() -> None:
    async with bench(**QUICK) as gate, client(gate) as http:

        async def break_off(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
            response = web.StreamResponse(headers={"x-leyden-policy-version": "policy@3"})
            await response.prepare(request)
            await response.write(b'data: {"object":"chat.completion.chunk","choices":[]}\n\n')
            assert request.transport is not None
            request.transport.abort()
            return response

        gate.engine.reply = break_off
        reply = await http.post(CHAT, json=ask(stream=True))
        assert (reply.status_code, "engine_broke" in reply.text, len(gate.engine.bodies)) == (200, True, 1)
        assert (gate.log.calls[0].error or "").startswith("engine_broke")


async def test_a_reply_that_does_not_end_is_broken_off() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 65536)
                await writer.drain()
        except ConnectionError:
            pass

    async with raw_server(flood) as url, bench(passed_to(url)) as gate, client(gate) as http:
        reply = await http.post(CHAT, json=ask("judge"))
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "engine_broke")


async def test_a_caller_who_leaves_while_a_retry_is_waited_for_is_recorded_and_nobody_is_asked_again() -> None:
    async with bench(retry_base_s=600.0, retry_cap_s=600.0, retry_after_cap_s=60.0) as gate, client(gate) as http:
        gate.engine.reply = status(503, {"retry-after": "0.4"})
        with pytest.raises(httpx.ReadTimeout):
            await http.post(CHAT, json=ask(), timeout=0.2)
        await until(lambda: bool(gate.log.calls))
        assert (gate.log.calls[0].error or "").startswith("cut_off")
        await asyncio.sleep(0.4)
        assert (len(gate.engine.bodies), gate.gateway.servers.load) == (1, {})


async def test_a_server_that_is_down_is_set_aside_and_found_again_by_one_call() -> None:
    server = ScriptedEngine()
    server.reply = status(503)
    async with engine_server(server):
        knobs = QUICK | {"retry_tries": 1, "circuit_failures": 3, "circuit_pause_s": 0.5}
        async with bench(passed_to(server.url), **knobs) as gate, client(gate) as http:
            opened = counted("circuit_opened", server="other")
            for _ in range(3):
                assert (await http.post(CHAT, json=ask("judge"))).status_code == 503
            refused = await http.post(CHAT, json=ask("judge"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "circuit_open")
            assert (refused.headers["retry-after"], len(server.bodies)) == ("1", 3)
            assert counted("circuit_opened", server="other") == opened + 1
            assert state("other") == 1
            await asyncio.sleep(0.5)
            server.reply, release = held(as_another_vendor)
            probing = asyncio.ensure_future(http.post(CHAT, json=ask("judge")))
            await until(lambda: len(server.bodies) == 4)
            assert (await http.post(CHAT, json=ask("judge"))).json()["error"]["code"] == "circuit_open"
            release.set()
            assert (await probing).status_code == 200
            assert state("other") == 0
            assert (await http.post(CHAT, json=ask("judge"))).status_code == 200


async def test_a_replica_that_reports_is_asked_again_at_once(second: ScriptedEngine) -> None:
    async with bench(retry_tries=1, circuit_failures=1, circuit_pause_s=600.0) as gate, client(gate) as http:
        gate.engine.reply = status(503)
        assert (await http.post(CHAT, json=ask())).status_code == 503
        assert (await http.post(CHAT, json=ask())).json()["error"]["code"] == "circuit_open"
        await gate.serve(3, "r0", second.url)
        assert (await http.post(CHAT, json=ask())).status_code == 200
        assert state("policy/r0") == 0


async def test_a_circuit_that_opens_under_a_waiting_call_ends_it() -> None:
    async with bench(**QUICK, circuit_failures=2) as gate, client(gate) as http:
        gate.engine.reply = status(503)
        reply = await http.post(CHAT, json=ask())
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_unreachable")
        assert (len(gate.engine.bodies), len(gate.log.calls), gate.gateway.servers.load) == (2, 1, {})


async def test_a_trying_call_whose_caller_leaves_does_not_shut_the_server_out(second: ScriptedEngine) -> None:
    knobs = QUICK | {"retry_tries": 1, "circuit_failures": 1, "circuit_pause_s": 0.1}
    async with bench(**knobs) as gate, client(gate) as http:
        gate.engine.reply = status(503)
        assert (await http.post(CHAT, json=ask())).status_code == 503
        await asyncio.sleep(0.1)
        gate.engine.reply, _ = held(gate.engine.default)
        with pytest.raises(httpx.ReadTimeout):
            await http.post(CHAT, json=ask(), timeout=0.2)
        await until(lambda: state("policy/r0") == 1)
        gate.engine.reply = gate.engine.default
        assert (await http.post(CHAT, json=ask())).status_code == 200


@pytest.mark.parametrize("model", ["policy", "judge"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_server_does_for_a_caller_who_left_is_cancelled(model: str, stream: bool) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def work_for_ever(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-leyden-policy-version": "policy@3"})
        try:
            if stream:
                await response.prepare(request)
                await response.write(b'data: {"object":"chat.completion.chunk","choices":[]}\n\n')
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return response

    server = ScriptedEngine()
    server.reply = work_for_ever
    async with engine_server(server), bench(passed_to(server.url)) as gate, client(gate) as http:
        gate.engine.reply = work_for_ever
        asking = asyncio.ensure_future(http.post(CHAT, json=ask(model, stream)))
        await asyncio.wait_for(begun.wait(), 5)
        asking.cancel()
        await asyncio.wait_for(cancelled.wait(), 5)
        await until(lambda: bool(gate.log.calls))
        assert (gate.log.calls[0].error or "").startswith("cut_off")
        assert gate.gateway.servers.load == {}


async def test_a_full_replica_is_passed_over_and_when_all_are_full_the_caller_is_told(second: ScriptedEngine) -> None:
    async with bench(engine_max_in_flight=1) as gate, client(gate) as http:
        await gate.serve(3, "r1", second.url)
        gate.engine.hold.clear()
        second.hold.clear()
        held_calls = [asyncio.ensure_future(http.post(CHAT, json=ask(stream=True))) for _ in range(2)]
        await until(lambda: len(gate.engine.bodies) == len(second.bodies) == 1)
        refused = await http.post(CHAT, json=ask())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_full")
        assert refused.headers["retry-after"] == "1"
        gate.engine.hold.set()
        second.hold.set()
        assert [(await call).status_code for call in held_calls] == [200, 200]


async def test_the_wait_before_the_handler_and_the_time_to_the_first_token_are_observed() -> None:
    def observed(metric: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"leyden_gateway_{metric}_seconds_count", labels) or 0.0

    async with bench() as gate, client(gate) as http:
        before = observed("queue"), observed("first_token", policy="policy")
        waited = queued()
        assert (await http.post(CHAT, json=ask(stream=True))).status_code == 200
        assert (observed("queue"), observed("first_token", policy="policy")) == (before[0] + 1, before[1] + 1)
        assert 0 <= queued() - waited < 0.5
        start = {"x-request-start": f"t={time.time() - 5:.3f}"}
        assert (await http.post(CHAT, json=ask(), headers=start)).status_code == 200
        assert queued() - waited > 5


def queued() -> float:
    return REGISTRY.get_sample_value("leyden_gateway_queue_seconds_sum") or 0.0


def state(place: str) -> float | None:
    return REGISTRY.get_sample_value("leyden_gateway_circuit_state", {"server": place})


def held(reply: Any) -> tuple[Any, asyncio.Event]:
    """A reply that waits until it is released."""
    gate = asyncio.Event()

    async def waiting(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        await gate.wait()
        return await reply(request, body)  # type: ignore[no-any-return]

    return waiting, gate


class again:  # noqa: N801 - reads as a verb where it is used
    """The engine on the port where it was before."""

    def __init__(self, engine: ScriptedEngine, port: int) -> None:
        self._engine, self._port = engine, port

    async def __aenter__(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._engine.handle)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


async def until(true: Any) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)
