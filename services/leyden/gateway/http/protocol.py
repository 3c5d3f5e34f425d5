"""uvicorn's fast HTTP protocol with two more limits; a client that exceeds one gets a reply and is disconnected.

The size of a request's head: 431. The number of connections: 503 with `Retry-After`, before anything is read.
(uvicorn's own `limit_concurrency` replies in plain text, without `Retry-After`, and accepts the connection.)
"""

import asyncio
import time
from http import HTTPStatus
from typing import Any, ClassVar

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from leyden.gateway.core.faces.openai import openai_error
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.handlers.admission import counted
from leyden.gateway.http.requests import ARRIVED, retry_after
from leyden.gateway.metrics import CONNECTIONS

LINGER_S = 1.0
"""How long data of a refused client is read and dropped; closing at once could lose the reply."""
LINGER_BYTES = 4 * 1024 * 1024


class _HeadTooLargeError(Exception):
    """Stops the parser."""


class BoundedProtocol(HttpToolsProtocol):
    """Limits a head (URL, headers, trailers) to `max_header_bytes` bytes and `max_headers` headers.

    At most `max_connections` are open at a time, idle ones too; further ones get 503 with `Retry-After`.
    """

    max_header_bytes: ClassVar[int] = 64 * 1024
    max_headers: ClassVar[int] = 128
    max_connections: ClassVar[int] = 2048
    retry_after_s: ClassVar[float] = 1.0

    url = b""
    head_timeout_s: ClassVar[float] = 30.0
    """Time limit for a head, from the connection or the head's first bytes."""

    _head_timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _unparsed_bytes = 0
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self.connections.discard(self)  # refused connections do not count
            self._refuse_connection()
            return
        CONNECTIONS.set(len(self.connections))
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        CONNECTIONS.set(len(self.connections))

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > LINGER_BYTES:
                self.transport.abort()
            return
        super().data_received(data)
        # The parser reports a header only when it is complete.
        if self._in_head:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(self.head_timeout_s, self._hang_up)
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > self.max_header_bytes:
                self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._unparsed_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes + len(self.url) > self.max_header_bytes or len(self.headers) >= self.max_headers:
            raise _HeadTooLargeError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Called when the parser fails or was stopped."""
        if not getattr(self.cycle, "response_complete", True):
            self.transport.abort()
        elif len(self.headers or ()) >= self.max_headers or self._head_bytes + len(self.url) > self.max_header_bytes:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _hang_up(self) -> None:
        if getattr(self.cycle, "response_complete", True):
            self.transport.close()
        else:  # the next request's head may wait until this reply is sent
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._hang_up)

    def _refuse_head(self) -> None:
        message = f"the request's head is larger than {self.max_header_bytes} bytes or {self.max_headers} headers"
        self._refuse(Refusal(431, "headers_too_large", message))

    def _refuse_connection(self) -> None:
        message = f"{self.max_connections} connections are open already"
        self._refuse(Refusal(503, "too_many_connections", message, retry_after_s=self.retry_after_s))

    def _refuse(self, refusal: Refusal) -> None:
        """Reply with an error in OpenAI's shape, and close the connection."""
        self._stop_timer()
        self._refused = True
        body = orjson.dumps(openai_error(counted(refusal)))
        lines = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}", "content-type: application/json"]
        lines += [f"{name}: {value}" for name, value in retry_after(refusal).items()]
        lines += ["connection: close", f"content-length: {len(body)}", "", ""]
        self.transport.write("\r\n".join(lines).encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._unparsed_bytes = 0
        self.loop.call_later(LINGER_S, self.transport.close)


class StampedProtocol(BoundedProtocol):
    """Also records when a request's first bytes were read, to measure the wait in the event loop."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][ARRIVED] = time.perf_counter()


def bounded(
    protocol: type[BoundedProtocol],
    *,
    max_header_bytes: int,
    max_headers: int,
    max_connections: int = BoundedProtocol.max_connections,
    retry_after_s: float = BoundedProtocol.retry_after_s,
) -> type[BoundedProtocol]:
    """`protocol` with these limits."""
    limits: dict[str, Any] = {"max_header_bytes": max_header_bytes, "max_headers": max_headers}
    limits |= {"max_connections": max_connections, "retry_after_s": retry_after_s}
    return type(protocol.__name__, (protocol,), limits)
