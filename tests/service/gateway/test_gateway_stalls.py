"""Clients that stop halfway: each wait of the gateway has an end, on every route, with and without a key."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from aiohttp import web
from prometheus_client import REGISTRY

import http_servers
from leyden.gateway.http.protocol import StampedProtocol, Wait, bounded
from leyden.service import http_config
from service.gateway.gateway_engine_fake import chunks, completion
from service.gateway.gateway_fakes import API_KEY, REF, Bench, bench, operations
from waiting import until

SHORT_S = 0.3
WAITS = dict.fromkeys(Wait, SHORT_S)
KEY = f"authorization: Bearer {API_KEY}\r\n"
NO_KEY = "authorization: Bearer nobody's\r\n"
PLACES = {
    "{rollout}": REF.rollout_id,
    "{attempt}": "0",
    "{model:path}": "policy",
    "{key_id}": "k",
    "{response_id}": "r",
}
Steps = AsyncIterator[bytes]


def _targets() -> list[tuple[str, str]]:
    """Method and path of every route."""
    found = {(one.method, prefix + one.path) for one in operations() for prefix in (*one.prefixes, *one.also_under)}
    for place, value in PLACES.items():
        found = {(method, path.replace(place, value)) for method, path in found}
    return sorted(found)


TARGETS = _targets()
OTLP = ("/v1/traces", "/v1/logs", "/v1/metrics")


def head(method: str, path: str, key: str, more: str = "content-length: 50\r\n") -> bytes:
    kind = "content-type: application/json\r\n"
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n{key}{kind}{more}\r\n".encode()


async def slowly(*pieces: bytes, drop: bytes = b"") -> Steps:
    """The pieces, then `drop` again and again, in less than any time limit."""
    for piece in pieces:
        yield piece
    while drop:
        await asyncio.sleep(SHORT_S / 6)
        yield drop


KINDS: dict[str, Callable[[str, str, str], Steps]] = {
    "nothing is sent": lambda method, path, key: slowly(),
    "half a head": lambda method, path, key: slowly(head(method, path, key)[:30]),
    "a head byte by byte": lambda method, path, key: slowly(head(method, path, key)[:-2] + b"x-slow: ", drop=b"v"),
    "no body": lambda method, path, key: slowly(head(method, path, key)),
    "half a body": lambda method, path, key: slowly(head(method, path, key), b'{"a":'),
    "a body byte by byte": lambda method, path, key: slowly(
        head(method, path, key, "content-length: 50000\r\n"), b'{"a":"', drop=b"a"
    ),
    "chunks without an end": lambda method, path, key: slowly(
        head(method, path, key, "transfer-encoding: chunked\r\n"), drop=b"1\r\n \r\n"
    ),
    "100-continue, then nothing": lambda method, path, key: slowly(
        head(method, path, key, "content-length: 50\r\nexpect: 100-continue\r\n")
    ),
    "no further request": lambda method, path, key: slowly(
        head(method, path, key, "content-length: 2\r\n") + b"{}", drop=b"\r\n"
    ),
    "half of the next head": lambda method, path, key: slowly(
        head(method, path, key, "content-length: 2\r\n") + b"{}" + head(method, path, key)[:20]
    ),
}


@asynccontextmanager
async def impatient(**changes: Any) -> AsyncIterator[Bench]:
    """A gateway whose waits end soon, behind the service's own server."""
    limits = {"body_timeout_s": 3 * SHORT_S, "body_stall_timeout_s": SHORT_S, "send_timeout_s": SHORT_S}
    async with bench(**limits | changes) as gate:
        protocol = bounded(StampedProtocol, max_header_bytes=65_536, max_headers=64, waits_s={**WAITS, Wait.BODY: 1.5})
        config = http_config(gate.gateway.routes(), "127.0.0.1", 0, protocol)
        async with http_servers.served(config) as gate.url:
            yield gate
            gate.engine.hold.set()


async def connect(gate: Bench, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = gate.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port), **options)


async def let_go(gate: Bench, steps: Steps) -> bytes:
    """What the gateway says to these bytes until it hangs up. Raises TimeoutError if it does not."""
    reader, writer = await connect(gate)

    async def send() -> None:
        with contextlib.suppress(ConnectionError):
            async for piece in steps:
                writer.write(piece)
                await writer.drain()

    sending = asyncio.create_task(send())
    try:
        said = b""
        async with asyncio.timeout(8):
            with contextlib.suppress(ConnectionError):
                while piece := await reader.read(65_536):
                    said += piece
        return said
    finally:
        sending.cancel()
        writer.close()


def gauge(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"leyden_gateway_{name}", labels) or 0.0


def held(gate: Bench) -> int:
    """Bytes of bodies that count."""
    gateway = gate.gateway
    return sum(bodies.budget.held for bodies in (gateway.otlp.bodies, gateway.bodies, gateway.leyden_bodies))


@pytest.mark.parametrize("key", [KEY, NO_KEY], ids=["key", "no key"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_stops_holds_nothing(kind: str, key: str) -> None:
    async with impatient() as gate, httpx.AsyncClient(base_url=gate.url, trust_env=False) as http:
        targets = [target for target in TARGETS if "claim" not in target[1] or "body" in kind]
        answers = await asyncio.gather(*(let_go(gate, KINDS[kind](*target, key)) for target in targets))
        if "body" in kind and key == NO_KEY:
            assert {answer[:13] for answer in answers} == {b"HTTP/1.1 401 "}
        if "body" in kind and key == KEY:
            waited = [answer for (method, _), answer in zip(targets, answers, strict=True) if method == "POST"]
            late = [answer for answer in waited if b"did not come within" in answer]
            assert {answer[9:12] for answer in late} == {b"408", b"503"}
            assert all((answer[9:12] == b"503") == (b"retry-after: 1" in answer) for answer in late)
            unread = [answer for answer in waited if answer not in late]
            assert all(answer[9:12] in (b"403", b"404", b"409") for answer in unread), unread
            assert len(unread) <= 2, "only what needs no body is answered without"
        assert held(gate) == 0
        answer = await http.get("/v1/models", headers={"authorization": f"Bearer {API_KEY}"})
        assert answer.status_code == 200


@pytest.mark.parametrize("path", [path for _, path in TARGETS if path.endswith(tuple(OTLP))])
async def test_an_export_that_comes_too_late_may_be_repeated(path: str) -> None:
    """OTLP exporters repeat a request after 503, not after 408."""
    async with impatient() as gate:
        answer = await let_go(gate, slowly(head("POST", path, KEY), b"{"))
        assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 1\r\n" in answer


async def test_a_full_budget_of_model_calls_keeps_no_runner_from_its_work() -> None:
    async with bench(max_body_bytes_in_flight=100_000) as gate, httpx.AsyncClient(base_url=gate.url) as http:
        http.headers["authorization"] = f"Bearer {API_KEY}"
        with gate.gateway.bodies.budget.open() as reserve:
            reserve(100_000)
            assert (await http.post("/v1/chat/completions", json=PROMPT)).status_code == 503
            assert (await http.post("/leyden/v1/tasks", json={"tasks": [{"task_id": "t"}]})).status_code == 201
            await gate.drain_tasks()
            claimed = (await http.post("/leyden/v1/rollouts/claim", json={"runner": "r"})).json()["rollouts"][0]
            url = f"/leyden/v1/rollouts/{claimed['rollout_id']}/attempts/0/end"
            assert (await http.post(url, json={"status": "succeeded"})).status_code == 200


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v1/chat/completions", "max_concurrent_calls"),
        ("/v1/messages/count_tokens", "max_concurrent_calls"),
        ("/v1/traces", "max_concurrent_traces"),
        ("/leyden/v1/tasks", "max_concurrent_requests"),
        ("/leyden/v1/rollouts/claim", "max_concurrent_claims"),
    ],
)
async def test_a_slow_body_keeps_nobody_else_out(path: str, limit: str) -> None:
    async with impatient(**{limit: 1, "body_timeout_s": 60.0, "body_stall_timeout_s": 60.0}) as gate:
        gate.engine.routes["/tokenize"] = tokens
        slow = [await connect(gate) for _ in range(5)]
        for _, writer in slow:
            writer.write(head("POST", path, KEY) + b"{")
            await writer.drain()
        await until(lambda: held(gate) == 5)
        async with httpx.AsyncClient(base_url=gate.url, trust_env=False) as http:
            key = {"authorization": f"Bearer {API_KEY}"}
            answer = await http.post(path, json=BODIES[path], headers=key)
        assert answer.status_code in (200, 201), answer.text
        for _, writer in slow:
            writer.close()
        await until(lambda: held(gate) == 0)


PROMPT = {"model": "policy", "messages": [{"role": "user", "content": "hi"}]}
BODIES: dict[str, Any] = {
    "/v1/chat/completions": PROMPT,
    "/v1/messages/count_tokens": PROMPT,
    "/v1/traces": {},
    "/leyden/v1/tasks": {"tasks": [{"task_id": "t"}]},
    "/leyden/v1/rollouts/claim": {"runner": "r"},
}


async def tokens(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return web.json_response({"count": 3})


async def test_a_half_closed_connection_is_closed() -> None:
    async with impatient() as gate:
        for sent in (b"", head("POST", "/v1/chat/completions", KEY), head("POST", "/v1/traces", NO_KEY) + b"{"):
            reader, writer = await connect(gate)
            writer.write(sent)
            writer.write_eof()
            async with asyncio.timeout(5):
                await reader.read()
            writer.close()
        assert held(gate) == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_a_reader_that_stops_lets_the_engine_go(stream: bool) -> None:
    """The reply is more than the sockets' buffers hold, so that the gateway has to wait for the reader."""

    async def long(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        text, served = "long " * 3_000_000, {"x-leyden-policy-version": gate.engine.version}
        if not stream:
            whole = completion(body)
            whole["choices"][0]["message"]["content"] = text
            return web.json_response(whole, headers=served)
        response = web.StreamResponse(headers=served)
        await response.prepare(request)
        try:
            for start in range(0, len(text), 50_000):
                chunk = chunks(body)[1]
                chunk["choices"][0]["delta"]["content"] = text[start : start + 50_000]
                await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
        except (asyncio.CancelledError, ConnectionError):
            gate.engine.cancelled.set()
        return response

    async with impatient(max_reply_bytes=32_000_000) as gate:
        gate.engine.reply = long
        reader, writer = await connect(gate, limit=1024)
        body = (
            b'{"model":"policy","messages":[{"role":"user","content":"hi"}],"stream":%s}' % str(stream).lower().encode()
        )
        writer.write(head("POST", "/v1/chat/completions", KEY, f"content-length: {len(body)}\r\n") + body)
        await writer.drain()
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await until(lambda: gauge("in_flight_requests", kind="calls") == 0 and held(gate) == 0, 10)
        await until(lambda: gauge("connections") == 0, 10)
        if stream:  # the engine notices with its next write
            await asyncio.wait_for(gate.engine.cancelled.wait(), 10)
        assert gate.engine.cancelled.is_set() == stream
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                while await reader.read(65_536):
                    pass
        writer.close()
