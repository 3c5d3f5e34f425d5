"""uvicorn's fast HTTP protocol with limits on sizes, connections and waits.

A head that is too large gets 431, a connection too many 503 with `Retry-After` before anything is read. (uvicorn's own
`limit_concurrency` replies in plain text, without `Retry-After`, and accepts the connection.) Whatever a client has to
do next has a time limit (`Wait`), after which it is disconnected; the time that the gateway itself needs has none here.
"""

import asyncio
import time
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from leyden.gateway.core.faces.openai import openai_error
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.handlers.admission import counted
from leyden.gateway.http.requests import ARRIVED, retry_after
from leyden.gateway.metrics import CONNECTIONS, WAITED_TOO_LONG

LINGER_S = 1.0
"""How long data of a refused client is read and dropped; closing at once could lose the reply."""
LINGER_BYTES = 4 * 1024 * 1024


class Wait(StrEnum):
    """What a connection waits for."""

    HEAD = "head"
    """The first head, or the rest of one."""
    BODY = "body"
    """The rest of a body, before the reply."""
    REST = "rest"
    """The rest of a body that nobody reads, after the reply: it is dropped."""
    IDLE = "idle"
    """The next request. uvicorn has a limit of its own, which any byte switches off."""
    READER = "reader"
    """The client reads nothing of the reply."""
    CLOSED = "closed"
    """The client reads nothing of what was sent before the connection was closed."""


WAITS_S: Mapping[Wait, float] = MappingProxyType(
    {Wait.HEAD: 15.0, Wait.BODY: 65.0, Wait.REST: 5.0, Wait.IDLE: 6.0, Wait.READER: 30.0, Wait.CLOSED: 30.0}
)
"""Time limits in seconds."""
READ_BYTES = 64 * 1024
"""A client that reads must read this much within the time limit of `READER` and `CLOSED`."""


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

    waits_s: ClassVar[Mapping[Wait, float]] = WAITS_S
    """Time limit of each wait, in seconds."""
    check_s: ClassVar[float] = 1.0
    """Interval of the check: a wait may last that much longer."""

    url = b""
    _timer: asyncio.TimerHandle | None = None
    _waits: tuple[Wait, int, int] | None = None
    _waits_since = 0.0
    _heads = _requests = 0
    _pauses = 0
    _in_head = _in_body = False
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
        self._check()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
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
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > self.max_header_bytes:
                self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._heads += 1
        self._head_bytes = self._unparsed_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes + len(self.url) > self.max_header_bytes or len(self.headers) >= self.max_headers:
            raise _HeadTooLargeError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        self._requests += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._pauses += 1
        super().pause_writing()

    def send_400_response(self, msg: str) -> None:
        """Called when the parser fails or was stopped."""
        if not getattr(self.cycle, "response_complete", True):
            self.transport.abort()
        elif len(self.headers or ()) >= self.max_headers or self._head_bytes + len(self.url) > self.max_header_bytes:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def _check(self) -> None:
        """Disconnect a client that has let the gateway wait too long. Called at intervals, as waits change often."""
        now, waits = self.loop.time(), self._waits_for()
        if waits != self._waits:
            self._waits, self._waits_since = waits, now
        elif waits is not None and now - self._waits_since >= self.waits_s[waits[0]]:
            WAITED_TOO_LONG.labels(wait=waits[0]).inc()
            if waits[0] in (Wait.READER, Wait.CLOSED):  # closing would wait until the client has read
                self.transport.abort()
                return
            self.transport.close()
        self._timer = self.loop.call_later(self.check_s, self._check)

    def _waits_for(self) -> tuple[Wait, int, int] | None:
        """What the client has to do next, and numbers that change with every new wait and with progress.

        None while the gateway works.
        """
        if self.transport.is_closing() or self.flow.write_paused:
            wait = Wait.CLOSED if self.transport.is_closing() else Wait.READER
            return wait, self._pauses, self.transport.get_write_buffer_size() // READ_BYTES
        if self._requests and not self.cycle.response_complete:  # the next head may wait until this reply is sent
            return (Wait.BODY, self._requests, 0) if self.cycle.more_body and not self.pipeline else None
        if self._in_head or not self._requests:
            return Wait.HEAD, self._heads, 0
        return (Wait.REST if self._in_body else Wait.IDLE), self._heads, 0

    def _refuse_head(self) -> None:
        message = f"the request's head is larger than {self.max_header_bytes} bytes or {self.max_headers} headers"
        self._refuse(Refusal(431, "headers_too_large", message))

    def _refuse_connection(self) -> None:
        message = f"{self.max_connections} connections are open already"
        self._refuse(Refusal(503, "too_many_connections", message, retry_after_s=self.retry_after_s))

    def _refuse(self, refusal: Refusal) -> None:
        """Reply with an error in OpenAI's shape, and close the connection."""
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
    waits_s: Mapping[Wait, float] = WAITS_S,
) -> type[BoundedProtocol]:
    """`protocol` with these limits."""
    limits: dict[str, Any] = {"max_header_bytes": max_header_bytes, "max_headers": max_headers}
    limits |= {"max_connections": max_connections, "retry_after_s": retry_after_s, "waits_s": waits_s}
    limits["check_s"] = min(BoundedProtocol.check_s, min(waits_s.values()) / 4)
    return type(protocol.__name__, (protocol,), limits)
