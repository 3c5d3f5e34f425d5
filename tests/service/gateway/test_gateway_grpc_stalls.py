"""Clients of OTLP over gRPC that stop halfway or send without a key, by HTTP/2 frames made by hand."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from leyden.events.otlp import Signal
from leyden.gateway.rpc import SERVICES, GrpcLimits, GrpcOtlp
from service.gateway.gateway_fakes import API_KEY, Bench, bench

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_HEADERS = 4
WINDOW = 65_535
"""What HTTP/2 lets a client send on a stream before the server says more."""
EXPORT = f"/{SERVICES[Signal.TRACES]}/Export"
SHORT_S = 0.4


@dataclass
class Wire:
    """One HTTP/2 connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    granted: int = WINDOW
    """Bytes that the server lets the client send on the stream so far."""

    def send(self, kind: int, stream: int, body: bytes = b"", flags: int = 0) -> None:
        self.writer.write(struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body)

    def open(self, stream: int, key: str) -> None:
        """A request that does not end."""
        named = {":method": "POST", ":scheme": "http", ":path": EXPORT, ":authority": "x", "te": "trailers"}
        named |= {"content-type": "application/grpc", "authorization": f"Bearer {key}"}
        block = b"".join(
            b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
            for name, value in named.items()
        )
        self.send(HEADERS, stream, block, END_HEADERS)

    async def until(self, kind: int, stream: int) -> bytes:
        """The next frame of this kind; b"" if the server hangs up. Counts what may be sent meanwhile."""
        async with asyncio.timeout(10):
            while True:
                try:
                    head = await self.reader.readexactly(9)
                except (asyncio.IncompleteReadError, ConnectionError):
                    return b""
                body = await self.reader.readexactly(int.from_bytes(head[:3]))
                of, found = int.from_bytes(head[5:9]), head[3]
                if found == WINDOW_UPDATE and of == stream:
                    self.granted += int.from_bytes(body)
                if found == SETTINGS and not head[4]:
                    self.send(SETTINGS, 0, flags=1)
                if found == PING and not head[4]:
                    self.send(PING, 0, body, flags=1)
                if (found, of) == (kind, stream):
                    return body


@asynccontextmanager
async def wire(port: int) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    made = Wire(reader, writer)
    made.send(SETTINGS, 0)
    try:
        yield made
    finally:
        writer.close()


@asynccontextmanager
async def door(gate: Bench, **changes: float) -> AsyncIterator[int]:
    limits = GrpcLimits(**{"message_timeout_s": SHORT_S, "head_timeout_s": SHORT_S} | changes)  # type: ignore[arg-type]
    server = GrpcOtlp(gate.gateway.otlp, "127.0.0.1", 0, limits).server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def spans() -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="work", trace_id=bytes([9] * 16))
    return request.SerializeToString()


async def export(port: int, key: str) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.unary_unary(EXPORT)(spans(), metadata=(("authorization", f"Bearer {key}"),), timeout=10)


def a_message(size: int) -> bytes:
    """The head of a message that does not come."""
    return b"\x00" + struct.pack(">I", size)


async def test_without_a_key_a_request_is_answered_before_its_message() -> None:
    async with bench() as gate, door(gate) as port, wire(port) as client:
        for stream in range(1, 64, 2):
            client.open(stream, "nobody's")
            client.send(DATA, stream, a_message(8_000_000) + bytes(1000))
            answer = await client.until(HEADERS, stream)
            assert b"grpc-status" in answer
            assert b"16" in answer, "UNAUTHENTICATED"
            assert client.granted <= 2 * WINDOW
        assert gate.gateway.otlp.bodies.budget.held == 0


async def test_with_a_key_the_message_may_come_and_has_a_time_limit() -> None:
    async with bench() as gate, door(gate) as port, wire(port) as client:
        client.open(1, API_KEY)
        client.send(DATA, 1, a_message(2_000_000) + bytes(1000))
        answer = await client.until(HEADERS, 1)
        assert b"grpc-status" in answer
        assert b"did not come within" in answer
        assert client.granted > 1_000_000, "otherwise the test above shows nothing"


@pytest.mark.parametrize("sent", [b"", a_message(100), a_message(100) + b"x"])
async def test_a_stream_without_end_is_ended(sent: bytes) -> None:
    async with bench() as gate, door(gate) as port, wire(port) as client:
        client.open(1, API_KEY)
        if sent:
            client.send(DATA, 1, sent)
        assert b"did not come within" in await client.until(HEADERS, 1)


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with bench() as gate, door(gate) as port:
        for sent in (b"", b"PRI * HTTP", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            async with asyncio.timeout(10):
                await reader.read()
            writer.close()


async def test_one_key_has_half_of_the_messages_at_a_time() -> None:
    async with bench() as gate, door(gate, max_messages=2, message_timeout_s=5.0) as port, wire(port) as client:
        for stream in (1, 3, 5, 7):
            client.open(stream, "other")
            client.send(DATA, stream, a_message(100))
        await client.until(SETTINGS, 0)
        async with asyncio.timeout(3):
            await export(port, API_KEY)
        assert len(gate.log.raw) == 1


async def test_requests_that_wait_for_their_turn_are_told_to_come_again() -> None:
    async with bench() as gate, door(gate, max_messages=2) as port, wire(port) as client:
        for stream in (1, 3):
            client.open(stream, API_KEY)
            client.send(DATA, stream, a_message(100))
        first, second = await client.until(HEADERS, 1), await client.until(HEADERS, 3)
        told = sorted((b"did not come within" in answer, b"received already" in answer) for answer in (first, second))
        assert told == [(False, True), (True, False)]
