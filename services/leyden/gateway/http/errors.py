"""Errors as each family of routes tells them: OpenAI's shape, Leyden's, and OTLP's."""

import math
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import orjson
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import Response

from leyden.gateway.core.refusals import Refusal
from leyden.gateway.metrics import REFUSED
from leyden.kafka import Retry

Endpoint = Callable[[Request], Awaitable[Response]]
Shape = Callable[[Refusal], Response]
KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def unavailable(retry_after_s: float = 1.0) -> Refusal:
    """What a passing fault of Kafka or Redis becomes; which one it was is in the log, not in the answer."""
    message = "the call could not be recorded just now; nothing was lost, send it again"
    return Refusal(503, "unavailable", message, retry_after_s=retry_after_s)


def kind_of(status: int) -> str:
    """The error's `type`, by status."""
    return KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")


def openai_error(refusal: Refusal) -> dict[str, Any]:
    """The body of an error in OpenAI's shape."""
    return {
        "error": {
            "message": refusal.message,
            "type": kind_of(refusal.status),
            "param": refusal.param,
            "code": refusal.code,
        }
    }


def openai_shape(refusal: Refusal) -> Response:
    """An error of the model API."""
    return _json(refusal, openai_error(refusal))


def leyden_shape(refusal: Refusal) -> Response:
    """An error of `/leyden/v1`."""
    return _json(refusal, {"error": {"type": refusal.code, "message": refusal.message}})


def otlp_shape(refusal: Refusal) -> Response:
    """An error of OTLP/HTTP: a protobuf `Status`."""
    body = Status(message=refusal.message).SerializeToString()
    headers = _retry_after(refusal)
    return Response(body, refusal.status, headers, media_type="application/x-protobuf")


def telling(shape: Shape, retry_after_s: float) -> Callable[[Endpoint], Endpoint]:
    """Wrap an endpoint so that a `Refusal` or a passing fault is answered in `shape`."""

    def wrap(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def told(request: Request) -> Response:
            try:
                return await endpoint(request)
            except Refusal as refusal:
                return shape(counted(refusal))
            except Retry:
                return shape(counted(unavailable(retry_after_s)))

        return told

    return wrap


def counted(refusal: Refusal) -> Refusal:
    """Count a refusal and give it back."""
    REFUSED.labels(code=refusal.code).inc()
    return refusal


def _json(refusal: Refusal, body: dict[str, Any]) -> Response:
    headers = _retry_after(refusal)
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(orjson.dumps(body), refusal.status, headers, media_type="application/json")


def _retry_after(refusal: Refusal) -> dict[str, str]:
    return {"retry-after": str(math.ceil(refusal.retry_after_s))} if refusal.retry_after_s is not None else {}
