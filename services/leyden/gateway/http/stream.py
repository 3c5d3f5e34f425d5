"""A streamed answer that knows when its reader has gone."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, aclosing
from typing import TypeVar

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from leyden.gateway.core.refusals import Refusal
from leyden.gateway.handlers.reply import OpenCall
from leyden.gateway.http.errors import counted, openai_error, unavailable
from leyden.kafka import Retry

log = logging.getLogger(__name__)
T = TypeVar("T")


class EventStream(Response):
    """Sends server-sent events as they come; when the reader leaves, the source is cancelled and closed.

    `slot` is held until the last byte. A failure after the first byte is told as an error event.
    """

    def __init__(
        self, call: OpenCall, headers: Mapping[str, str], slot: AbstractContextManager[object, bool | None]
    ) -> None:
        self.status_code = 200
        self.background = None
        self._call = call
        self._slot = slot
        self.init_headers(
            {"cache-control": "no-cache", "content-type": "text/event-stream; charset=utf-8"} | dict(headers)
        )
        # init_headers gives an empty body's length, of which a stream has none.
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, until the end or until the reader has gone."""
        with self._slot:
            sending = asyncio.create_task(self._send_all(send))
            try:
                await unless_gone(sending, receive)
            finally:
                self._call.abandon()

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._call.events()) as events:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for event in events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            except Refusal as refusal:
                await self._tell(send, refusal)
            except Retry:
                await self._tell(send, unavailable())
            except Exception:
                log.exception("a stream could not be brought to its end")
                await self._tell(send, Refusal(500, "internal", "the gateway could not bring the stream to its end"))
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    @staticmethod
    async def _tell(send: Send, refusal: Refusal) -> None:
        body = b"data: " + orjson.dumps(openai_error(counted(refusal))) + b"\n\n"
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def unless_gone(work: asyncio.Task[T], receive: Receive) -> T | None:
    """The work's result, or None when the caller left first (the work is cancelled then)."""
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait([work, leaving], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        return None
    finally:
        for task in (leaving, work):
            task.cancel()
        await asyncio.gather(leaving, work, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
