"""OTLP over gRPC: the Export methods of traces, logs and metrics. Imported only where its port is set.

Messages are bytes and are not decoded. OTLP says which codes an exporter may retry, RESOURCE_EXHAUSTED only with a
`RetryInfo`. So overload is UNAVAILABLE with a `RetryInfo`, and a message over the limit is RESOURCE_EXHAUSTED without
one (gRPC itself refuses it, by its decompressed size). TLS is left to a proxy.
"""

import logging
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from leyden.events.otlp import PROTOBUF, Signal
from leyden.gateway.core.keys import Scope
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
STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True)
class GrpcOtlp:
    """The gRPC server of one gateway; keys and limits are those of `api`, shared with HTTP."""

    api: OtlpApi
    host: str
    port: int
    max_streams: int
    """Requests at a time on one connection; HTTP/2 holds further ones back at the client."""

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
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self.api.max_bytes),
                ("grpc.max_concurrent_streams", self.max_streams),
                ("grpc.so_reuseport", 0),  # a second gateway on the port fails, and does not take half of the requests
            ]
        )
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    name, {"Export": grpc.unary_unary_rpc_method_handler(partial(self._export, signal))}
                )
                for signal, name in SERVICES.items()
            ]
        )
        return server

    async def _export(self, signal: Signal, body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            await self._take(signal, body, dict(context.invocation_metadata() or ()))
        except Refusal as refusal:
            await _abort(context, refusal)
        except Retry:
            await _abort(context, unavailable(self.api.retry_after_s))
        return success(signal, PROTOBUF)

    async def _take(self, signal: Signal, body: bytes, metadata: dict[str, str | bytes]) -> None:
        caller = self.api.keys.caller(*_credentials(metadata))
        caller.must(Scope.AGENT)
        attempt = attempt_of(caller, None, _text(metadata, SESSION_HEADER))
        with self.api.limiter.slot(), self.api.budget.open() as reserve:
            self.api.handler.must_be_up()
            reserve(len(body))
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


def _credentials(metadata: dict[str, str | bytes]) -> list[str]:
    keys = [f"Bearer {key}" for name in KEY_HEADERS if (key := _text(metadata, name))]
    return [*filter(None, [_text(metadata, "authorization")]), *keys]


def _text(metadata: dict[str, str | bytes], name: str) -> str | None:
    value = metadata.get(name)
    return value if isinstance(value, str) else None
