"""uvicorn's fast HTTP protocol with a bound on a request's head, which it lacks: more is a 431 and a hang-up."""

import asyncio
from typing import ClassVar

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_S = 1.0
"""How long what a refused client still sends is read and dropped: hanging up on it at once could lose the answer."""
LINGER_BYTES = 4 * 1024 * 1024


class _HeadTooLargeError(Exception):
    """Stops the parser where it is."""


class BoundedProtocol(HttpToolsProtocol):
    """A head (URL and headers; trailers too) has at most `max_header_bytes` bytes and `max_headers` headers."""

    max_header_bytes: ClassVar[int] = 64 * 1024
    max_headers: ClassVar[int] = 128

    url = b""
    head_timeout_s: ClassVar[float] = 30.0
    """From the connection, or a head's first bytes, until the head is whole."""

    _head_timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _unparsed_bytes = 0
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > LINGER_BYTES:
                self.transport.abort()
            return
        super().data_received(data)
        # The parser keeps a header to itself until it has the whole of it.
        if self._in_head:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(self.head_timeout_s, self._hang_up)
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > self.max_header_bytes:
                self._refuse()

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
        """What the parser's failing leads to; here also its being stopped."""
        if not getattr(self.cycle, "response_complete", True):
            self.transport.abort()
        elif len(self.headers or ()) >= self.max_headers or self._head_bytes + len(self.url) > self.max_header_bytes:
            self._refuse()
        else:
            super().send_400_response(msg)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _hang_up(self) -> None:
        if getattr(self.cycle, "response_complete", True):
            self.transport.close()
        else:  # the next request's head may wait for as long as this one's answer takes
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._hang_up)

    def _refuse(self) -> None:
        self._stop_timer()
        self._refused = True
        message = f"the request's head is larger than {self.max_header_bytes} bytes or {self.max_headers} headers"
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": "headers_too_large"}
        body = orjson.dumps({"error": error})
        head = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._unparsed_bytes = 0
        self.loop.call_later(LINGER_S, self.transport.close)


def bounded(protocol: type[BoundedProtocol], max_header_bytes: int, max_headers: int) -> type[BoundedProtocol]:
    """`protocol` with these bounds."""
    limits = {"max_header_bytes": max_header_bytes, "max_headers": max_headers}
    return type(protocol.__name__, (protocol,), limits)
