"""Bounded intake: who comes in, so many requests at a time, so many bytes each, nested so deep."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from leyden.gateway.core.keys import Caller, limit_headers, rate_limited
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.handlers.keys import KeyLimiter
from leyden.gateway.http.errors import EXTRA_HEADERS
from leyden.gateway.metrics import IN_FLIGHT, labelled

BODY_TIMEOUT_S = 60.0
"""How long a body may take to come: it holds a place meanwhile."""
ModelT = TypeVar("ModelT", bound=BaseModel)
MAX_JSON_DEPTH = 100
"""Parsers and encoders on the way to Kafka and back give up from 200 on; what real requests nest stays under 40."""


def credential(request: Request) -> str | None:
    """The `Authorization` header, or one made of the header in which Anthropic's and Azure's clients send the key."""
    headers = request.headers
    if authorization := headers.get("authorization"):
        return authorization
    key = headers.get("x-api-key") or headers.get("api-key")
    return f"Bearer {key}" if key else None


class Limiter:
    """At most `limit` requests of a kind at a time; one more is refused at once with `status`, never queued."""

    def __init__(self, kind: str, limit: int, status: int, retry_after_s: float) -> None:
        self._kind = kind
        self._limit = limit
        self._status = status
        self._retry_after_s = retry_after_s
        self._now = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one place; raises `Refusal` when there is none."""
        if self._now >= self._limit:
            message = f"{self._limit} {self._kind} are being served already"
            raise Refusal(self._status, "overloaded", message, retry_after_s=self._retry_after_s)
        self._now += 1
        labelled(IN_FLIGHT, self._kind).set(self._now)
        try:
            yield
        finally:
            self._now -= 1
            labelled(IN_FLIGHT, self._kind).set(self._now)


class Admission:
    """The way in for model calls: a place in this replica, then what the caller's key has left."""

    def __init__(self, limiter: Limiter, keys: KeyLimiter, retry_after_s: float) -> None:
        self._limiter = limiter
        self._keys = keys
        self._retry_after_s = retry_after_s
        self._under_way: Counter[str] = Counter()

    async def enter(self, request: Request, caller: Caller, held: ExitStack) -> None:
        """Take what the call needs, until `held` is closed. Raises a 429 `Refusal`, or `Retry` when Redis is away."""
        held.enter_context(self._limiter.slot())
        if caller.key_id is None:
            return
        if caller.limits.concurrency is not None:
            held.enter_context(self._key_slot(caller.key_id, caller.limits.concurrency))
        if (level := await self._keys.take(caller)) is not None:
            request.scope[EXTRA_HEADERS] = limit_headers(caller.limits, level)
            if not level.admitted:
                raise rate_limited(caller.limits, level)

    @contextmanager
    def _key_slot(self, key_id: str, limit: int) -> Iterator[None]:
        if self._under_way[key_id] >= limit:
            message = f"{limit} calls of this key are being served already"
            raise Refusal(429, "key_concurrency", message, retry_after_s=self._retry_after_s)
        self._under_way[key_id] += 1
        try:
            yield
        finally:
            self._under_way[key_id] -= 1
            if not self._under_way[key_id]:
                del self._under_way[key_id]


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises a 400 `Refusal` for anything else, and for one that is nested too deep."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "invalid_json", f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Refusal(400, "invalid_json", "the body must be a JSON object")
    if body.count(b"{") + body.count(b"[") > MAX_JSON_DEPTH and _deeper_than(parsed, MAX_JSON_DEPTH):
        raise Refusal(400, "invalid_json", f"the body is nested deeper than {MAX_JSON_DEPTH} levels")
    return parsed


async def json_body(request: Request, kind: type[ModelT], limit: int) -> ModelT:
    """The body of a `/leyden/v1` request. Raises a `Refusal`: 413, or a 400 that names the field that is wrong."""
    raw = await read_body(request, limit)
    if raw.count(b"{") + raw.count(b"[") > MAX_JSON_DEPTH:
        json_object(raw)
    try:
        return kind.model_validate_json(raw or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise Refusal(400, "invalid_request", f"{where}: {first['msg']}") from error


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in (dict, list)
        ]
        if not level:
            return False
    return True


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises a `Refusal`: 413 as soon as it is known to be longer than `limit`, 408 when it stalls."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                pieces.append(piece)
    except TimeoutError as error:
        message = f"the body did not come within {BODY_TIMEOUT_S:g} s"
        raise Refusal(408, "body_timeout", message) from error
    return b"".join(pieces)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "body_too_large", f"the body is larger than {limit} bytes")
