"""Bounded intake: so many requests at a time, so many bytes each."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from leyden.gateway.core.refusals import Refusal
from leyden.gateway.metrics import IN_FLIGHT


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
        IN_FLIGHT.labels(kind=self._kind).set(self._now)
        try:
            yield
        finally:
            self._now -= 1
            IN_FLIGHT.labels(kind=self._kind).set(self._now)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises a 413 `Refusal` as soon as it is known to be longer than `limit`."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "body_too_large", f"the body is larger than {limit} bytes")
