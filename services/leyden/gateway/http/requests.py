"""Common parts of all routes: the key, the bounded body, errors in the API's own shape.

The time that a request waited before its handler is only a metric, as a caller can set that header.
"""

import asyncio
import json
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from leyden.gateway.core.faces import Face
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.refusals import Refusal, Reserve, unavailable
from leyden.gateway.core.request import MAX_JSON_DEPTH, SESSION_HEADER, Binding, bind, decoded_bytes, json_object
from leyden.gateway.handlers.admission import Budget, Limiter, counted
from leyden.gateway.metrics import QUEUE_SECONDS
from leyden.kafka import Retry

CLIENT_CLOSED_REQUEST = 499
ROLLOUT_PREFIX = "/rollouts/{rollout}"
START_HEADER = "x-request-start"
ARRIVED = "leyden_arrived"
"""Key in a request's state: when its first bytes were read."""
LONGEST_S = 3600.0
"""A longer wait means a wrong clock, or a header with another meaning."""
UNITS = ((1e14, 1e6), (1e11, 1e3))
"""(lower bound, units per second): nginx sends seconds, Heroku milliseconds, others microseconds."""
INLINE_BYTES = 256 * 1024
"""Larger bodies are estimated in a thread."""
ModelT = TypeVar("ModelT", bound=BaseModel)
Endpoint = Callable[[Request], Awaitable[Response]]
Shape = Callable[[Refusal], Response]


KEY_HEADERS = ("x-api-key", "api-key")
"""Key headers of Anthropic's and Azure's clients."""


def credentials(request: Request) -> list[str]:
    """The `Authorization` headers, and those made from key headers."""
    headers = request.headers
    keys = [f"Bearer {key}" for name in KEY_HEADERS for key in headers.getlist(name)]
    return headers.getlist("authorization") + keys


def bind_request(keys: KeyRing, request: Request) -> Binding:
    """The caller and the attempt. Raises `Refusal`: 401, 403 or 404."""
    headers = request.headers
    caller = keys.caller(*credentials(request))
    return bind(request.path_params.get("rollout"), caller, headers.get("traceparent"), headers.get(SESSION_HEADER))


@dataclass(frozen=True)
class Bodies:
    """How bodies are read: the limits of one, and what all of them together may take."""

    budget: Budget
    max_bytes: int
    timeout_s: float
    """For the whole body."""
    stall_s: float
    """For the next piece of it."""
    max_decoded_bytes: int | None = None
    """Of JSON: what its values may take in memory, estimated; None: bodies are not decoded."""
    late_retry_after_s: float | None = None
    """If set, a body that comes too late gets 503 with this `Retry-After`: OTLP exporters do not repeat a 408."""

    async def read(self, request: Request, reserve: Reserve) -> bytes:
        """The whole body. Raises `Refusal`: 413 as soon as it is too large, 408 or 503 if it is late, 503 without room.

        No slot is held meanwhile: a slow client keeps nobody else out.
        """
        announced = request.headers.get("content-length", "0")
        if announced.isascii() and announced.isdigit() and (len(announced) > 18 or int(announced) > self.max_bytes):
            raise self._too_large()
        body = b"".join(await self._pieces(request, reserve))
        if self.max_decoded_bytes is not None:
            inline = len(body) <= INLINE_BYTES
            decoded = decoded_bytes(body) if inline else await asyncio.to_thread(decoded_bytes, body)
            if decoded > self.max_decoded_bytes:
                message = f"the body's values take about {decoded} bytes in memory, more than {self.max_decoded_bytes}"
                raise Refusal(413, "body_too_large", message)
            reserve(decoded)
        return body

    @asynccontextmanager
    async def admitted(self, request: Request, limiter: Limiter) -> AsyncIterator[bytes]:
        """The whole body, counted and with a slot of `limiter` during the block. Raises `Refusal`, see `read`."""
        limiter.must_have_room()
        with self.budget.open() as reserve:
            body = await self.read(request, reserve)
            with limiter.slot():
                yield body

    async def _pieces(self, request: Request, reserve: Reserve) -> list[bytes]:
        pieces: list[bytes] = []
        size = 0
        now = asyncio.get_running_loop().time
        end = now() + self.timeout_s
        try:
            async with asyncio.timeout_at(min(end, now() + self.stall_s)) as limit:
                async for piece in request.stream():
                    size += len(piece)
                    if size > self.max_bytes:
                        raise self._too_large()
                    reserve(len(piece))
                    pieces.append(piece)
                    limit.reschedule(min(end, now() + self.stall_s))
        except TimeoutError as error:
            message = f"the body did not come within {self.timeout_s:g} s, or stopped for {self.stall_s:g} s"
            status = 408 if self.late_retry_after_s is None else 503
            raise Refusal(status, "body_timeout", message, retry_after_s=self.late_retry_after_s) from error
        return pieces

    def _too_large(self) -> Refusal:
        return Refusal(413, "body_too_large", f"the body is larger than {self.max_bytes} bytes")


def json_body(raw: bytes, kind: type[ModelT]) -> ModelT:
    """The body of a `/leyden/v1` request. Raises a 400 `Refusal` that names the invalid field."""
    if raw.count(b"{") + raw.count(b"[") > MAX_JSON_DEPTH:
        json_object(raw)
    try:
        return kind.model_validate_json(raw or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise Refusal(400, "invalid_request", f"{where}: {first['msg']}") from error


def json_answer(answer: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`answer` as JSON, written by orjson; by Python if a number is too large for that."""
    try:
        written = orjson.dumps(answer)
    except TypeError:
        written = json.dumps(answer).encode()
    return Response(written, status, headers, media_type="application/json")


def face_shape(face: Face) -> Shape:
    """Errors of a model API, each with a request's id."""

    def shape(refusal: Refusal) -> Response:
        refusal.request_id = refusal.request_id or secrets.token_hex(16)
        return _error(refusal, face.error(refusal), request_ids(refusal.request_id))

    return shape


def leyden_shape(refusal: Refusal) -> Response:
    """An error of `/leyden/v1`."""
    return _error(refusal, {"error": {"type": refusal.code, "message": refusal.message}})


def request_ids(request_id: str | None = None) -> dict[str, str]:
    """The request id headers of OpenAI's and Anthropic's clients, with the call's id if there is a call."""
    request_id = request_id or secrets.token_hex(16)
    return {"x-request-id": request_id, "request-id": request_id}


def _error(refusal: Refusal, body: dict[str, Any], headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    return json_answer(body, refusal.status, {**headers, **error_headers(refusal)})


def error_headers(refusal: Refusal) -> dict[str, str]:
    """The headers of any error."""
    bearer = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
    return {**refusal.headers, **retry_after(refusal), **bearer}


def retry_after(refusal: Refusal) -> dict[str, str]:
    """The `Retry-After` header, if the same request may succeed later."""
    return {"retry-after": str(math.ceil(refusal.retry_after_s))} if refusal.retry_after_s is not None else {}


class App:
    """An endpoint as an ASGI application; a `Refusal` or a temporary fault becomes an error in `shape`."""

    def __init__(self, endpoint: Endpoint, shape: Shape, retry_after_s: float) -> None:
        self._endpoint = endpoint
        self._shape = shape
        self._retry_after_s = retry_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._endpoint(Request(scope, receive))
        except Refusal as refusal:
            response = self._shape(counted(refusal))
        except Retry:
            response = self._shape(counted(unavailable(self._retry_after_s)))
        except ClientDisconnect:
            response = Response(status_code=CLIENT_CLOSED_REQUEST)
        await response(scope, receive, send)


def note_wait(request: Request) -> None:
    """Record how long the request has waited."""
    waited = waited_s(request.scope, request.headers.get(START_HEADER), time.perf_counter(), time.time())
    if waited is not None:
        QUEUE_SECONDS.observe(waited)


def waited_s(scope: Scope, header: str | None, now: float, wall: float) -> float | None:
    """Seconds since the proxy accepted the request, if it says so, else since its first bytes were read.

    None if neither is known.
    """
    started = _moment(header)
    if started is not None and 0 <= wall - started <= LONGEST_S:
        return wall - started
    arrived = scope.get("state", {}).get(ARRIVED)
    return now - arrived if isinstance(arrived, float) else None


def _moment(header: str | None) -> float | None:
    """A time given as `t=<number>` or `<number>`, in seconds since 1970."""
    text = (header or "").strip().removeprefix("t=")
    if not text.isascii() or not text.replace(".", "", 1).isdigit() or len(text) > 32:
        return None
    number = float(text)
    return number / next((unit for least, unit in UNITS if number >= least), 1.0)
