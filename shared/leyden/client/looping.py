"""Small helpers around asyncio that runner, programs and launcher share."""

import asyncio
from collections.abc import Callable
from typing import Any

CANCEL_S = 5.0
"""What an agent that was told to stop gets for its own clean-up."""


async def first_of(*awaited: asyncio.Future[Any], stopping: asyncio.Event, timeout_s: float | None = None) -> None:
    """Wait until one of them is done, or `stopping` is set, or time is up."""
    waiter = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({*awaited, waiter}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()


async def cancel(future: asyncio.Future[Any]) -> None:
    """Tell it to stop, and wait `CANCEL_S` for that."""
    future.cancel()
    await asyncio.wait({future}, timeout=CANCEL_S)


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], Any]) -> None:
    """Run `callback` on the loop, from another thread; nothing when the loop has gone."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
