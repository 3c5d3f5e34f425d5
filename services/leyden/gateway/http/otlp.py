"""OTLP over HTTP: `/v1/traces`, `/v1/logs` and `/v1/metrics`, also under `/rollouts/{id}`, in protobuf and in JSON."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope as StarletteScope

from leyden.events.otlp import JSON, PROTOBUF, Signal
from leyden.gateway.core.keys import KeyRing, Scope
from leyden.gateway.core.otlp.answers import failure, success
from leyden.gateway.core.otlp.unpack import Reserve, unpack
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import SESSION_HEADER
from leyden.gateway.handlers.otlp import Budget, Export, OtlpDoor, attempt_of
from leyden.gateway.http.errors import counted, unavailable
from leyden.gateway.http.intake import Limiter, credential
from leyden.kafka import Retry

INLINE_BYTES = 16 * 1024
"""Compressed bodies up to this size are unpacked in the event loop; a larger one would make other requests wait."""
CLIENT_CLOSED_REQUEST = 499
VERSION = "/v1"
ROLLOUT = "/rollouts/{rollout}"
PROTOBUF_NAMES = (PROTOBUF, "application/protobuf", "application/vnd.google.protobuf")
"""OTLP's name first; the others are what protobuf is called elsewhere."""


@dataclass(frozen=True)
class OtlpApi:
    """What the OTLP routes are made of."""

    keys: KeyRing
    door: OtlpDoor
    limiter: Limiter
    budget: Budget
    max_bytes: int
    retry_after_s: float

    def routes(self) -> list[BaseRoute]:
        """A route for each signal, with and without a rollout in front.

        Exporters add `/v1/traces` to their endpoint, and the base URL of a rollout ends with `/v1`: both are taken.
        """
        return [
            _QuickRoute(
                f"{prefix}/v1/{signal}",
                partial(self._answer, signal),
                methods=["POST"],
                include_in_schema=not prefix.endswith(VERSION),
            )
            for prefix in ("", ROLLOUT, ROLLOUT + VERSION)
            for signal in Signal
        ]

    async def _answer(self, signal: Signal, request: Request) -> Response:
        content_type = _media_type(request)
        try:
            return await self._export(signal, content_type, request)
        except Refusal as refusal:
            return _told(refusal, content_type)
        except Retry:
            return _told(unavailable(self.retry_after_s), content_type)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    async def _export(self, signal: Signal, content_type: str, request: Request) -> Response:
        caller = self.keys.caller(credential(request))
        caller.must(Scope.AGENT)
        encoding = JSON if content_type == JSON else PROTOBUF
        if content_type not in (JSON, *PROTOBUF_NAMES):
            raise Refusal(415, "unsupported_media_type", f"send OTLP as {PROTOBUF} or {JSON}")
        attempt = attempt_of(caller, request.path_params.get("rollout"), request.headers.get(SESSION_HEADER))
        with self.limiter.slot(), self.budget.open() as reserve:
            self.door.must_be_open()
            body = await self._body(request, reserve)
            await self.door.take(Export(signal, encoding, body, caller, attempt))
        return Response(success(signal, encoding), media_type=content_type)

    async def _body(self, request: Request, reserve: Reserve) -> bytes:
        body = await _read(request, self.max_bytes, reserve)
        encoding = request.headers.get("content-encoding", "")
        if not encoding or len(body) <= INLINE_BYTES:
            return unpack(encoding, body, self.max_bytes, reserve)
        return await asyncio.to_thread(unpack, encoding, body, self.max_bytes, reserve)


class _QuickRoute(Route):
    """A route that knows by its end what it is not: before the others, it costs them nothing."""

    def matches(self, scope: StarletteScope) -> tuple[Match, StarletteScope]:
        if scope["type"] != "http" or not scope["path"].endswith(self.path[-8:]):
            return Match.NONE, {}
        return super().matches(scope)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(request: Request, limit: int, reserve: Reserve) -> bytes:
    """The body as it was sent, reserved piece by piece; raises a 413 `Refusal` once it is known to be too long."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise Refusal(413, "body_too_large", f"the body is larger than {limit} bytes")
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise Refusal(413, "body_too_large", f"the body is larger than {limit} bytes")
        reserve(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def otlp_shape(request: Request) -> Callable[[Refusal], Response]:
    """Errors of requests that are no export: in the encoding of the request where it has one, else in JSON."""
    content_type = _media_type(request)
    return partial(_shown, content_type=content_type if content_type in PROTOBUF_NAMES else JSON)


def _told(refusal: Refusal, content_type: str) -> Response:
    """A refusal in the encoding of the request; a request in neither is answered in protobuf."""
    return _shown(counted(refusal), content_type)


def _shown(refusal: Refusal, content_type: str) -> Response:
    headers = {}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(refusal.retry_after_s))
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    shown = content_type if content_type in (JSON, *PROTOBUF_NAMES) else PROTOBUF
    return Response(failure(refusal, shown), refusal.status, headers, media_type=shown)
