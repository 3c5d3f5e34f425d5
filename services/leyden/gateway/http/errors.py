"""Errors as each family of routes tells them: the model APIs' shapes, and Leyden's. OTLP has its own, in `otlp.py`."""

import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from types import MappingProxyType
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from leyden.gateway.core.faces import Face
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.http.answers import json_answer
from leyden.gateway.metrics import REFUSED
from leyden.kafka import Retry

CLIENT_CLOSED_REQUEST = 499
EXTRA_HEADERS = "leyden.headers"
"""In a request's scope: headers for whatever answer it gets."""
Endpoint = Callable[[Request], Awaitable[Response]]
Shape = Callable[[Refusal], Response]


def unavailable(retry_after_s: float = 1.0) -> Refusal:
    """What a passing fault of Kafka or Redis becomes; which one it was is in the log, not in the answer."""
    message = "the call could not be recorded just now; nothing was lost, send it again"
    return Refusal(503, "unavailable", message, retry_after_s=retry_after_s)


def face_shape(face: Face) -> Shape:
    """Errors of a model API, each with a request's id."""

    def shape(refusal: Refusal) -> Response:
        refusal.request_id = refusal.request_id or secrets.token_hex(16)
        return _json(refusal, face.error(refusal), request_ids(refusal.request_id))

    return shape


def request_ids(request_id: str | None = None) -> dict[str, str]:
    """The headers that OpenAI's and Anthropic's clients show as the request's id: the call's, where there is a call."""
    request_id = request_id or secrets.token_hex(16)
    return {"x-request-id": request_id, "request-id": request_id}


def leyden_shape(refusal: Refusal) -> Response:
    """An error of `/leyden/v1`."""
    return _json(refusal, {"error": {"type": refusal.code, "message": refusal.message}})


def telling(shape: Shape, retry_after_s: float) -> Callable[[Endpoint], Endpoint]:
    """Wrap an endpoint so that a `Refusal` or a passing fault is answered in `shape`."""

    def wrap(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def told(request: Request) -> Response:
            try:
                response = await endpoint(request)
            except Refusal as refusal:
                response = shape(counted(refusal))
            except Retry:
                response = shape(counted(unavailable(retry_after_s)))
            except ClientDisconnect:
                return Response(status_code=CLIENT_CLOSED_REQUEST)
            if extra := request.scope.get(EXTRA_HEADERS):
                response.headers.update(extra)
            return response

        return told

    return wrap


def counted(refusal: Refusal) -> Refusal:
    """Count a refusal and give it back."""
    REFUSED.labels(code=refusal.code).inc()
    return refusal


def _json(refusal: Refusal, body: dict[str, Any], headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    headers = {**headers, **_retry_after(refusal)}
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return json_answer(body, refusal.status, headers)


def _retry_after(refusal: Refusal) -> dict[str, str]:
    return {"retry-after": str(math.ceil(refusal.retry_after_s))} if refusal.retry_after_s is not None else {}
