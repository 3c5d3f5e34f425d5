"""OTLP over gRPC: the Export methods of traces, logs and metrics. Imported only where its port is set.

Messages are bytes and are not decoded. A request's key is checked before its message is received: until then HTTP/2's
flow control lets a client send 64 KiB. gRPC shows neither the size of a message nor how much of it has come, so there
is a limit on messages that are received at a time, and on the time of each.

OTLP says which codes an exporter may retry, RESOURCE_EXHAUSTED only with a `RetryInfo`. So overload is UNAVAILABLE with
a `RetryInfo`, and a message over the limit is RESOURCE_EXHAUSTED without one (gRPC itself refuses it, by its
decompressed size). TLS is left to a proxy.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import NoReturn
from weakref import WeakValueDictionary

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from leyden.events.otlp import PROTOBUF, Signal
from leyden.gateway.core.keys import Caller, Scope
from leyden.gateway.core.refusals import Refusal, unavailable
from leyden.gateway.core.request import SESSION_HEADER
from leyden.gateway.handlers.admission import counted
from leyden.gateway.handlers.otlp import Export, attempt_of
from leyden.gateway.http.otlp import OtlpApi, status_code, success
from leyden.gateway.http.requests import KEY_HEADERS
from leyden.kafka import Retry

log = logging.getLogger(__name__)
SERVICES = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
}
DETAILS = "grpc-status-details-bin"
GRACE_S = 15.0
IDLE_S = 120.0
"""A connection without a request is closed after this time; exporters connect again by themselves."""
PING_S, PONG_S = 60.0, 20.0
"""How often a client is asked whether it is there, and how long it has to answer."""
STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True)
class GrpcLimits:
    """What clients of gRPC may do. Times in seconds."""

    max_streams: int = 64
    """Requests at a time on one connection; HTTP/2 holds further ones back at the client."""
    max_message_bytes: int = 8 * 1024 * 1024
    max_messages: int = 16
    """Messages that are received at a time; one key may have half of them."""
    message_timeout_s: float = 10.0
    """For waiting until a message may be received, and for receiving it."""
    max_connections: int = 2048
    max_header_bytes: int = 64 * 1024
    head_timeout_s: float = 15.0


class Receiving:
    """Receives messages, not too many at a time."""

    def __init__(self, limits: GrpcLimits, retry_after_s: float) -> None:
        self._limits = limits
        self._retry_after_s = retry_after_s
        self._all = asyncio.Semaphore(limits.max_messages)
        self._of_caller: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()

    async def receive(self, messages: AsyncIterator[bytes], caller: Caller) -> bytes:
        """The message of a request. Raises `Refusal`: 408 if it does not come, 400 without one, 503."""
        whose = (caller.key_id, caller.attempt, caller.bootstrap)
        share = self._of_caller.get(whose)
        if share is None:
            share = self._of_caller[whose] = asyncio.Semaphore(max(1, self._limits.max_messages // 2))
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._limits.message_timeout_s):
                    await held.enter_async_context(share)
                    await held.enter_async_context(self._all)
            except TimeoutError as error:
                message = "too many messages are being received already"
                raise Refusal(503, "overloaded", message, retry_after_s=self._retry_after_s) from error
            try:
                async with asyncio.timeout(self._limits.message_timeout_s):
                    async for body in messages:
                        return body
            except TimeoutError as error:
                message = f"the message did not come within {self._limits.message_timeout_s:g} s"
                raise Refusal(408, "body_timeout", message) from error
        raise Refusal(400, "no_message", "the request has no message")


@dataclass(frozen=True)
class GrpcOtlp:
    """The gRPC server of one gateway; keys and limits are those of `api`, shared with HTTP."""

    api: OtlpApi
    host: str
    port: int
    limits: GrpcLimits

    async def serve(self) -> None:
        """Serve until cancelled, then finish running requests. Raises if the port is in use."""
        server = self.server()
        host = f"[{self.host}]" if ":" in self.host else self.host
        bound = server.add_insecure_port(f"{host}:{self.port}")
        await server.start()
        log.info("OTLP over gRPC on %s:%d", self.host, bound)
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(GRACE_S)

    def server(self) -> grpc.aio.Server:
        """The server, not bound to a port yet."""
        receiving = Receiving(self.limits, self.api.retry_after_s)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self.limits.max_message_bytes),
                ("grpc.max_concurrent_streams", self.limits.max_streams),
                ("grpc.max_allowed_incoming_connections", self.limits.max_connections),
                ("grpc.max_metadata_size", self.limits.max_header_bytes),
                ("grpc.server_handshake_timeout_ms", _ms(self.limits.head_timeout_s)),
                ("grpc.max_connection_idle_ms", _ms(IDLE_S)),
                ("grpc.keepalive_time_ms", _ms(PING_S)),
                ("grpc.keepalive_timeout_ms", _ms(PONG_S)),
                ("grpc.http2.bdp_probe", 0),  # it would let clients send more before their key is known
                ("grpc.so_reuseport", 0),  # a second gateway on the port fails, and does not take half of the requests
            ]
        )
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    # Declared as a stream: gRPC receives the message of a unary method before it calls the handler.
                    name,
                    {"Export": grpc.stream_unary_rpc_method_handler(partial(self._export, receiving, signal))},
                )
                for signal, name in SERVICES.items()
            ]
        )
        return server

    async def _export(
        self, receiving: Receiving, signal: Signal, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> bytes:
        receive = partial(receiving.receive, messages)
        try:
            await self._take(signal, receive, dict(context.invocation_metadata() or ()))
        except Refusal as refusal:
            await _abort(context, refusal)
        except Retry:
            await _abort(context, unavailable(self.api.retry_after_s))
        return success(signal, PROTOBUF)

    async def _take(
        self, signal: Signal, receive: Callable[[Caller], Awaitable[bytes]], metadata: dict[str, str | bytes]
    ) -> None:
        caller = self.api.keys.caller(*_credentials(metadata))
        caller.must(Scope.AGENT)
        attempt = attempt_of(caller, None, _text(metadata, SESSION_HEADER))
        self.api.handler.must_be_up()
        self.api.limiter.must_have_room()
        with self.api.bodies.budget.open() as reserve:
            body = await receive(caller)
            reserve(len(body))
            with self.api.limiter.slot():
                await self.api.handler.take(Export(signal, PROTOBUF, body, caller, attempt))


async def _abort(context: grpc.aio.ServicerContext, refusal: Refusal) -> NoReturn:
    counted(refusal)
    status = Status(code=status_code(refusal), message=refusal.message)
    if refusal.retry_after_s is not None:
        after = Duration()
        after.FromMilliseconds(round(refusal.retry_after_s * 1000))
        detail = Any()
        detail.Pack(RetryInfo(retry_delay=after))
        status.details.append(detail)
    trailers = ((DETAILS, status.SerializeToString()),)
    await context.abort(STATUS_CODES[status.code], refusal.message, trailers)
    raise AssertionError("abort raises")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _credentials(metadata: dict[str, str | bytes]) -> list[str]:
    keys = [f"Bearer {key}" for name in KEY_HEADERS if (key := _text(metadata, name))]
    return [*filter(None, [_text(metadata, "authorization")]), *keys]


def _text(metadata: dict[str, str | bytes], name: str) -> str | None:
    value = metadata.get(name)
    return value if isinstance(value, str) else None
