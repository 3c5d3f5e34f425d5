"""Retries with exponential backoff."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

ResultT = TypeVar("ResultT")
Jitter = Callable[[float], float]
"""Maps a computed delay to the actual one, both in seconds."""


def no_jitter(delay_s: float) -> float:
    """Return the delay unchanged."""
    return delay_s


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff: `first_s` seconds after the first failure, doubled after each, at most `max_s`."""

    first_s: float
    max_s: float
    jitter: Jitter = no_jitter

    def delays(self) -> Iterator[float]:
        """Yield the delays in seconds, forever."""
        delay_s = self.first_s
        while True:
            yield self.jitter(delay_s)
            delay_s = min(delay_s * 2, self.max_s)


async def retrying(
    act: Callable[[], Awaitable[ResultT]],
    backoff: Backoff,
    on: type[Exception] | tuple[type[Exception], ...],
    *,
    tries: int | None = None,
    failed: Callable[[Exception, float], None] = lambda error, delay_s: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> ResultT:
    """Call `act` until it succeeds, with a delay after each failure, and return its result.

    Only exceptions of the types `on` are retried. After `tries` failures (None: no limit) the last one is raised.
    `failed` is called before each delay, with the exception and the delay in seconds.
    """
    for attempt, delay_s in enumerate(backoff.delays(), 1):
        try:
            return await act()
        except on as error:
            if attempt == tries:
                raise
            failed(error, delay_s)
        await sleep(delay_s)
    raise AssertionError("unreachable: delays() never ends")
