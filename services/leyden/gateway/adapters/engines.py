"""HTTP client of policy servers and other upstreams, with one aiohttp connection pool."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import aiohttp
import orjson

from leyden.gateway.core.upstreams import Timeouts
from leyden.gateway.ports import DONE, EngineBroke, EngineUnreachable


class AiohttpReply:
    """An engine's reply. Its body is read once, up to `max_bytes`; its first byte must come by `first_byte_by`."""

    def __init__(self, response: aiohttp.ClientResponse, first_byte_by: float | None, max_bytes: int) -> None:
        self._response = response
        self._first_byte_by = first_byte_by
        self._max_bytes = max_bytes

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def read(self) -> bytes:
        return b"".join([piece async for piece in self._pieces()])

    async def payloads(self) -> AsyncIterator[bytes]:
        splitter = SseSplitter()
        async for piece in self._pieces():
            for payload in splitter.feed(piece):
                yield payload
        for payload in splitter.end():
            yield payload

    async def _pieces(self) -> AsyncIterator[bytes]:
        content, size = self._response.content, 0
        try:
            async with asyncio.timeout_at(self._first_byte_by):
                piece = await content.readany()
            while piece:
                size += len(piece)
                if size > self._max_bytes:
                    text = f"the engine's answer is longer than {self._max_bytes} bytes"
                    raise EngineBroke(text, too_long=True)
                yield piece
                piece = await content.readany()
        except TimeoutError as error:
            raise EngineBroke("the engine did not finish in time", timed_out=True) from error
        except aiohttp.ClientError as error:
            raise EngineBroke(f"the engine's answer broke off: {error!r}") from error

    def close(self) -> None:
        # Not release(): closing the connection of an unfinished reply stops the engine's work.
        self._response.close()


class AiohttpEngines:
    """`Engines` over HTTP; open it in the event loop that uses it."""

    def __init__(self, keepalive_s: float, max_connections: int, max_reply_bytes: int) -> None:
        self._keepalive_s = keepalive_s
        self._max_connections = max_connections
        self._max_reply_bytes = max_reply_bytes
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Create the pool, without connections yet."""
        connector = aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=self._keepalive_s)
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=True, cookie_jar=aiohttp.DummyCookieJar()
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeouts: Timeouts) -> AiohttpReply:
        assert self._session is not None, "open() comes first"
        by = asyncio.get_running_loop().time() + timeouts.first_byte_s if timeouts.first_byte_s else None
        timeout = aiohttp.ClientTimeout(total=timeouts.total_s, sock_connect=timeouts.connect_s)
        try:
            async with asyncio.timeout_at(by):
                response = await self._session.post(
                    url, data=body, headers=headers, allow_redirects=False, timeout=timeout
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise EngineUnreachable(str(error)) from error
        except TimeoutError as error:
            raise EngineBroke("the engine did not answer in time", timed_out=True) from error
        except aiohttp.ClientError as error:
            raise EngineBroke(f"the engine broke off: {error!r}") from error
        return AiohttpReply(response, by, self._max_reply_bytes)


class SseSplitter:
    """Parses server-sent events from chunks of bytes. Ignores comments and fields other than `data`."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The payloads of the events that `piece` completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        done: list[bytes] = []
        for raw in lines:
            line = raw.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                done.append(b"\n".join(self._data))
                self._data = []
        return done

    def end(self) -> list[bytes]:
        """The payload of an event that has no final blank line when the body ends; none if it is cut off."""
        payload = b"".join(self.feed(b"\n\n"))
        try:
            return [payload] if payload == DONE or orjson.loads(payload) else []
        except orjson.JSONDecodeError:
            return []
