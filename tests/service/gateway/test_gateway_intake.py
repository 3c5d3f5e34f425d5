"""What is too large, too much or too deep, on a server that is started as the service starts it."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from http_servers import served
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import MAX_JSON_DEPTH, json_object
from leyden.gateway.http.protocol import StampedProtocol, bounded
from leyden.service import http_config
from service.gateway.gateway_fakes import API_KEY, Bench, bench

HEAD_BYTES = 4096
HEADERS = 32
MAX_BODY = 1_000_000
CHAT = "/v1/chat/completions"
POSTS = (
    CHAT,
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
    "/leyden/v1/keys",
    "/leyden/v1/rollouts",
    "/leyden/v1/rollouts/claim",
    "/leyden/v1/tasks",
)


@pytest.fixture
async def small() -> AsyncIterator[Bench]:
    """A gateway with small limits, behind the service's own server."""
    async with bench(max_body_bytes=MAX_BODY, max_concurrent_calls=1) as made:
        protocol = bounded(StampedProtocol, max_header_bytes=HEAD_BYTES, max_headers=HEADERS)
        async with served(http_config(made.gateway.routes(), "127.0.0.1", 0, protocol)) as made.url:
            yield made
            made.engine.hold.set()


@pytest.fixture
async def http(small: Bench) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {API_KEY}"}
    async with httpx.AsyncClient(base_url=small.url, headers=headers, trust_env=False, timeout=20) as client:
        yield client


def _address(small: Bench) -> tuple[str, int]:
    host, port = small.url.removeprefix("http://").split(":")
    return host, int(port)


async def raw(small: Bench, *pieces: bytes) -> bytes:
    """What the server says to bytes that come in pieces, until it hangs up."""
    reader, writer = await asyncio.open_connection(*_address(small))
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_a_head_within_bounds_passes(http: httpx.AsyncClient) -> None:
    headers = {f"x-{n}": "v" for n in range(HEADERS - 7)} | {"x-long": "v" * 3000}
    assert (await http.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "query"),
    [({"x-long": "v" * HEAD_BYTES}, ""), ({f"x-{n}": "v" for n in range(HEADERS)}, ""), ({}, "?" + "q" * HEAD_BYTES)],
)
async def test_a_head_that_is_too_large_is_a_431_and_the_next_request_is_served(
    http: httpx.AsyncClient, headers: dict[str, str], query: str
) -> None:
    answer = await http.get(f"/v1/models{query}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")
    assert (await http.get("/v1/models")).status_code == 200


async def test_a_head_that_never_ends_is_not_kept(small: Bench) -> None:
    start = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-long: "
    answer = await raw(small, start, *[b"v" * 1000] * 8)
    assert answer.startswith(b"HTTP/1.1 431 ")
    answer = await raw(small, start + b"v" * 300_000)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(
    small: Bench, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (CHAT, "/v1/messages", "/leyden/v1/tasks"):
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {API_KEY}\r\ncontent-length: 50\r\n\r\n{{"
        _, writer = await asyncio.open_connection(*_address(small))
        writer.write(head.encode())
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
    await asyncio.sleep(0.1)
    assert (await http.post(CHAT, json={"model": "policy", "messages": []})).status_code == 200
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_trailers_count_as_headers_do(small: Bench) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {API_KEY}\r\ntransfer-encoding: chunked\r\n\r\n"
    small.engine.hold.clear()
    trailers = b"".join(b"x-%d: v\r\n" % n for n in range(100))
    answer = await raw(small, head.encode(), b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n")
    assert not answer.startswith(b"HTTP/1.1 2")
    assert len(small.engine.bodies) == 0


async def test_what_is_no_http_is_hung_up_on(small: Bench) -> None:
    assert (await raw(small, b"\x16\x03\x01 not http\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_pipelined_requests_are_each_counted_alone(small: Bench) -> None:
    one = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {API_KEY}\r\nx-a: {'v' * 1500}\r\n"
    answer = await raw(small, (one + "\r\n").encode() * 4, (one + "connection: close\r\n\r\n").encode())
    assert answer.count(b"HTTP/1.1 200 ") == 5


async def test_a_body_that_is_too_large_is_a_413_announced_or_not(http: httpx.AsyncClient) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 100_000

    for path in POSTS:
        announced = await http.post(path, content=b" " * (MAX_BODY + 1))
        chunked = await http.post(path, content=unannounced())
        assert [announced.status_code, chunked.status_code] == [413, 413]
        assert str(MAX_BODY) in announced.json()["error"]["message"]
    assert (await http.get("/v1/models")).status_code == 200


async def test_one_call_more_than_there_are_places_is_a_429_at_once(small: Bench, http: httpx.AsyncClient) -> None:
    body = {"model": "policy", "messages": []}
    small.engine.hold.clear()
    first = asyncio.create_task(http.post(CHAT, json=body))
    while not small.engine.bodies:
        await asyncio.sleep(0.01)
    refused = await http.post(CHAT, json=body)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    small.engine.hold.set()
    assert (await first).status_code == 200
    assert (await http.post(CHAT, json=body)).status_code == 200


async def test_deeply_nested_otlp_in_json_is_no_crash_either(http: httpx.AsyncClient) -> None:
    for text in (deep(30_000), deep(30_000, "[", "]"), '{"resourceSpans":' + "[" * 30_000, deep(900), deep(150)):
        answer = await http.post("/v1/traces", content=text, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400), "fields that OTLP does not know are nothing to it, however deep"
    assert (await http.get("/v1/models")).status_code == 200


def deep(levels: int, opening: str = '{"a":', closing: str = "}") -> str:
    return opening * levels + "1" + closing * levels


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(deep(101), id="one-too-many"),
        pytest.param(deep(253), id="what-the-encoder-takes"),
        pytest.param(deep(900), id="what-the-parser-takes"),
        pytest.param(deep(30_000), id="far-beyond"),
        pytest.param(deep(30_000, "[", "]"), id="lists"),
        pytest.param("[" * 100_000, id="never-closed"),
        pytest.param('{"a":' * 30_000, id="objects-never-closed"),
    ],
)
async def test_deeply_nested_json_is_a_400_and_no_crash(http: httpx.AsyncClient, bad: str) -> None:
    for path in POSTS:
        for text in (bad, f'{{"model": "policy", "messages": [], "input": {bad}, "metadata": {bad}}}'):
            answer = await http.post(path, content=text)
            assert answer.status_code == 400, (path, answer.text)


async def test_what_is_as_deep_as_allowed_is_served_and_can_be_read_again(
    small: Bench, http: httpx.AsyncClient
) -> None:
    nested = orjson.loads(deep(MAX_JSON_DEPTH - 1))
    answer = await http.post(CHAT, json={"model": "policy", "messages": [], "metadata": nested})
    assert answer.status_code == 200
    (call,) = small.log.calls
    assert type(call).model_validate_json(call.model_dump_json()).request["metadata"] == nested
    task = {"task_id": "t", "input": orjson.loads(deep(MAX_JSON_DEPTH - 3))}
    assert (await http.post("/leyden/v1/tasks", json={"tasks": [task]})).status_code == 201
    event = small.log.published[-1].event
    assert type(event).model_validate_json(event.model_dump_json()) == event


async def test_brackets_in_text_are_not_depth(http: httpx.AsyncClient) -> None:
    body = {"model": "policy", "messages": [{"role": "user", "content": "[{" * 5000}] * 3}
    assert (await http.post(CHAT, json=body)).status_code == 200


@given(
    st.recursive(
        st.integers(0, 9) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
        max_leaves=30,
    ),
    st.integers(0, 130),
)
def test_an_object_is_taken_exactly_when_it_is_no_deeper_than_allowed(value: object, wrapped: int) -> None:
    for _ in range(wrapped):
        value = {"a": value}
    body = orjson.dumps({"a": value})
    fits = _depth(orjson.loads(body)) <= MAX_JSON_DEPTH
    try:
        taken = json_object(body) is not None
    except Refusal:
        taken = False
    assert taken is fits


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
