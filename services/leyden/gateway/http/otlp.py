"""OTLP over HTTP: `/v1/traces`, `/v1/logs`, `/v1/metrics`, also under `/rollouts/{id}`, as protobuf and JSON."""

import asyncio
from dataclasses import dataclass
from functools import partial

import orjson
from google.rpc.code_pb2 import Code  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Send
from starlette.types import Scope as StarletteScope

from leyden.events.otlp import JSON, PROTOBUF, Signal
from leyden.gateway.core.keys import KeyRing, Scope
from leyden.gateway.core.otlp.unpack import unpack
from leyden.gateway.core.refusals import Refusal, Reserve
from leyden.gateway.core.request import SESSION_HEADER
from leyden.gateway.handlers.admission import Limiter
from leyden.gateway.handlers.otlp import Export, OtlpHandler, attempt_of
from leyden.gateway.http.operations import JsonDict, Operation
from leyden.gateway.http.requests import ROLLOUT_PREFIX, App, Bodies, Shape, credentials, error_headers

INLINE_BYTES = 16 * 1024
"""Compressed bodies up to this size are decompressed in the event loop; larger ones would delay other requests."""
VERSION = "/v1"
PROTOBUF_NAMES = (PROTOBUF, "application/protobuf", "application/vnd.google.protobuf")
"""OTLP's media type first, then other names of protobuf."""


EITHER: JsonDict = {
    PROTOBUF: {"schema": {"type": "string", "format": "binary"}},
    JSON: {"schema": {"type": "object"}},
}
NO_METRICS = "metrics are not kept here; OTEL_METRICS_EXPORTER=none stops sending them"
"""A warning, not an error: exporters with one endpoint for all signals must not retry or fail."""
_WARNING = ExportMetricsServiceResponse(partial_success=ExportMetricsPartialSuccess(error_message=NO_METRICS))
_METRICS = {False: _WARNING.SerializeToString(), True: orjson.dumps({"partialSuccess": {"errorMessage": NO_METRICS}})}
INTERNAL: int = Code.INTERNAL
_CODES: dict[int, int] = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    408: Code.DEADLINE_EXCEEDED,
    413: Code.RESOURCE_EXHAUSTED,
    415: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
}


@dataclass(frozen=True)
class OtlpApi:
    """The dependencies of the OTLP routes."""

    keys: KeyRing
    handler: OtlpHandler
    limiter: Limiter
    bodies: Bodies
    retry_after_s: float

    def operations(self) -> list[Operation]:
        """One operation per signal.

        Exporters add `/v1/traces` to their endpoint, and a rollout's base URL ends with `/v1`: both forms work.
        """
        return [
            Operation(
                method="POST",
                path=f"/v1/{signal}",
                summary=f"OTLP {signal}, as it comes into the log.",
                tag="OTLP",
                app=_SignalApp(self, signal),
                body=EITHER,
                body_required=False,
                answers={200: EITHER},
                errors=(400, 401, 403, 404, 413, 415, 503),
                error=EITHER,
                bound=True,
                also_under=(ROLLOUT_PREFIX + VERSION,),
                route=_QuickRoute,
            )
            for signal in Signal
        ]

    async def export(self, signal: Signal, request: Request) -> Response:
        """Answer an export request. Raises a `Refusal` or `Retry`."""
        content_type = _media_type(request)
        caller = self.keys.caller(*credentials(request))
        caller.must(Scope.AGENT)
        encoding = JSON if content_type == JSON else PROTOBUF
        if content_type not in (JSON, *PROTOBUF_NAMES):
            raise Refusal(415, "unsupported_media_type", f"send OTLP as {PROTOBUF} or {JSON}")
        attempt = attempt_of(caller, request.path_params.get("rollout"), request.headers.get(SESSION_HEADER))
        self.handler.must_be_up()
        self.limiter.must_have_room()
        with self.bodies.budget.open() as reserve:
            body = await self.bodies.read(request, reserve)
            with self.limiter.slot():
                body = await self._unpacked(request, body, reserve)
                await self.handler.take(Export(signal, encoding, body, caller, attempt))
        return Response(success(signal, encoding), media_type=content_type)

    async def _unpacked(self, request: Request, body: bytes, reserve: Reserve) -> bytes:
        encoding = request.headers.get("content-encoding", "")
        if not encoding or len(body) <= INLINE_BYTES:
            return unpack(encoding, body, self.bodies.max_bytes, reserve)
        return await asyncio.to_thread(unpack, encoding, body, self.bodies.max_bytes, reserve)


class _SignalApp:
    """The ASGI application of one signal. Errors are in the request's encoding; by default protobuf."""

    def __init__(self, api: OtlpApi, signal: Signal) -> None:
        self._api = api
        self._signal = signal

    async def __call__(self, scope: StarletteScope, receive: Receive, send: Send) -> None:
        shape = partial(_shown, content_type=_media_type(Request(scope)))
        app = App(partial(self._api.export, self._signal), shape, self._api.retry_after_s)
        await app(scope, receive, send)


class _QuickRoute(Route):
    """A route that checks the end of the path first, so that it costs other routes nothing."""

    def matches(self, scope: StarletteScope) -> tuple[Match, StarletteScope]:
        if scope["type"] != "http" or not scope["path"].endswith(self.path[-8:]):
            return Match.NONE, {}
        return super().matches(scope)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def otlp_shape(request: Request) -> Shape:
    """Errors of requests that are not exports: in the request's encoding; by default JSON."""
    content_type = _media_type(request)
    return partial(_shown, content_type=content_type if content_type in PROTOBUF_NAMES else JSON)


def _shown(refusal: Refusal, content_type: str) -> Response:
    shown = content_type if content_type in (JSON, *PROTOBUF_NAMES) else PROTOBUF
    return Response(failure(refusal, shown), refusal.status, error_headers(refusal), media_type=shown)


def success(signal: Signal, content_type: str) -> bytes:
    """The reply to an accepted request: empty, as nothing is rejected in part, except for the warning about metrics."""
    in_json = content_type == JSON
    if signal is Signal.METRICS:
        return _METRICS[in_json]
    return b"{}" if in_json else b""


def status_code(refusal: Refusal) -> int:
    """The `google.rpc.Code` of a refusal; in gRPC it also says whether a retry is allowed."""
    return _CODES.get(refusal.status, INTERNAL)


def failure(refusal: Refusal, content_type: str) -> bytes:
    """A `google.rpc.Status`."""
    if content_type == JSON:
        return orjson.dumps({"code": status_code(refusal), "message": refusal.message})
    status: bytes = Status(code=status_code(refusal), message=refusal.message).SerializeToString()
    return status
