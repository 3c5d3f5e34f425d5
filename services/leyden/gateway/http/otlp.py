"""`/v1/traces`: OTLP/HTTP in protobuf, into the log as it is. Looked at only to know that it is OTLP."""

import asyncio
import zlib
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from leyden.events.codec import OTLP
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.http.errors import otlp_shape, telling
from leyden.gateway.http.intake import Limiter, read_body
from leyden.gateway.metrics import TRACE_BYTES
from leyden.kafka import Publisher

PROTOBUF = "application/x-protobuf"
GZIP_WINDOW = 31
INLINE_BYTES = 64 * 1024
"""Compressed bodies up to this size are unpacked in the event loop; a larger one would make other requests wait."""
ACCEPTED = ExportTraceServiceResponse().SerializeToString()


@dataclass(frozen=True)
class TraceApi:
    """What the OTLP route is made of."""

    keys: KeyRing
    publisher: Publisher
    limiter: Limiter
    max_bytes: int
    retry_after_s: float

    def routes(self) -> list[BaseRoute]:
        """The one route."""
        return [Route("/v1/traces", telling(otlp_shape, self.retry_after_s)(self._traces), methods=["POST"])]

    async def _traces(self, request: Request) -> Response:
        self.keys.caller(request.headers.get("authorization"))
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != PROTOBUF:
            raise Refusal(415, "unsupported_media_type", f"send OTLP as {PROTOBUF}")
        with self.limiter.slot():
            body = await self._unpacked(request, await read_body(request, self.max_bytes))
            if _has_spans(body):
                await self.publisher.publish_raw(OTLP, "", body)
                TRACE_BYTES.inc(len(body))
        return Response(ACCEPTED, media_type=PROTOBUF)

    async def _unpacked(self, request: Request, body: bytes) -> bytes:
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("identity", ""):
            return body
        if encoding != "gzip":
            raise Refusal(415, "unsupported_encoding", "content-encoding must be gzip or identity")
        if len(body) <= INLINE_BYTES:
            return gunzip(body, self.max_bytes)
        return await asyncio.to_thread(gunzip, body, self.max_bytes)


def gunzip(body: bytes, limit: int) -> bytes:
    """The body, unpacked. Raises a `Refusal`: 413 when it unpacks to more than `limit`, 400 when it is no gzip."""
    unpacker = zlib.decompressobj(GZIP_WINDOW)
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refusal(400, "invalid_gzip", f"the body is not gzip: {error}") from error
    if len(unpacked) > limit:
        raise Refusal(413, "body_too_large", f"the body is larger than {limit} bytes when unpacked")
    if not unpacker.eof:
        raise Refusal(400, "invalid_gzip", "the gzip body ends early")
    return unpacked


def _has_spans(body: bytes) -> bool:
    """Whether there is anything to keep. Raises a 400 `Refusal` for what is no OTLP trace request."""
    try:
        return len(ExportTraceServiceRequest.FromString(body).resource_spans) > 0
    except DecodeError as error:
        raise Refusal(400, "invalid_protobuf", "the body is not an ExportTraceServiceRequest") from error
