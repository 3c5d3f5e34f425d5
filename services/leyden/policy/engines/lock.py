"""A lock for inference requests (shared) and weight swaps (exclusive), within one event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SwapLock:
    """Held by many requests or by one swap. New requests wait for a swap that is already waiting."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._swapping = asyncio.Lock()
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """Number of requests that hold the lock."""
        return self._in_flight

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Hold the lock for one request, until its last byte is sent."""
        while not self._open.is_set():
            await self._open.wait()
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    @asynccontextmanager
    async def exclusive(self, drain_s: float) -> AsyncIterator[None]:
        """Block new requests and wait for running ones to finish. Raises TimeoutError after `drain_s` seconds."""
        async with self._swapping:
            self._open.clear()
            try:
                async with asyncio.timeout(drain_s):
                    await self._idle.wait()
                yield
            finally:
                self._open.set()
