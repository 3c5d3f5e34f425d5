"""Policy servers over HTTP: one long-lived aiohttp pool for all."""

from collections.abc import AsyncIterator, Mapping

import aiohttp

from leyden.gateway.ports import EngineBroke, EngineUnreachable

PIECE_BYTES = 64 * 1024


class AiohttpReply:
    """An answer of an engine."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def read(self) -> bytes:
        try:
            return await self._response.read()
        except TimeoutError as error:
            raise EngineBroke("the engine did not answer in time", timed_out=True) from error
        except aiohttp.ClientError as error:
            raise EngineBroke(f"the engine's answer broke off: {error!r}") from error

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except TimeoutError as error:
            raise EngineBroke("the engine did not finish in time", timed_out=True) from error
        except aiohttp.ClientError as error:
            raise EngineBroke(f"the engine's stream broke off: {error!r}") from error

    def close(self) -> None:
        # Not release(): of an answer that is not at its end, the connection is closed, which stops the engine's work.
        self._response.close()


class AiohttpEngines:
    """`Engines`, to be opened within the event loop that uses it."""

    def __init__(self, connect_timeout_s: float, timeout_s: float, keepalive_s: float, max_connections: int) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=None, sock_connect=connect_timeout_s)
        self._keepalive_s = keepalive_s
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the pool; nothing is connected yet."""
        connector = aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=self._keepalive_s)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=self._timeout, auto_decompress=True, cookie_jar=aiohttp.DummyCookieJar()
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> AiohttpReply:
        assert self._session is not None, "open() comes first"
        try:
            response = await self._session.post(url, data=body, headers=headers, allow_redirects=False)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise EngineUnreachable(str(error)) from error
        except TimeoutError as error:
            raise EngineBroke("the engine did not answer in time", timed_out=True) from error
        except aiohttp.ClientError as error:
            raise EngineBroke(f"the engine broke off: {error!r}") from error
        return AiohttpReply(response)
