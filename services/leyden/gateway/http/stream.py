"""A streamed answer that knows when its reader has gone."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from leyden.gateway.core.refusals import Refusal
from leyden.gateway.handlers.reply import OpenCall
from leyden.gateway.http.errors import counted, unavailable
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
            try:
                await unless_gone(self._send_all(send), receive)
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

    async def _tell(self, send: Send, refusal: Refusal) -> None:
        body = self._call.told(counted(refusal))
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T | None:
    """The work's result, or None when the caller left first (the work is cancelled then).

    The work runs in the task that waits for it; only the look-out for the caller is a task of its own.
    """
    working = asyncio.current_task()
    assert working is not None
    watch = _Watch(working)
    looking = asyncio.create_task(_gone(receive, watch))
    try:
        return await work
    except asyncio.CancelledError:
        if watch.cancelled and working.uncancel() == 0:
            return None
        raise
    finally:
        watch.over = True
        looking.cancel()


@dataclass(slots=True)
class _Watch:
    """What the look-out and the work know of each other."""

    working: asyncio.Task[Any]
    over: bool = False
    cancelled: bool = False


async def _gone(receive: Receive, watch: _Watch) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if not watch.over:
        watch.cancelled = True
        watch.working.cancel()
