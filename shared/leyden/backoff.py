"""Waiting between tries: delays that double up to a limit, and one runner that tries again after them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

ResultT = TypeVar("ResultT")
Jitter = Callable[[float], float]
"""Turns a delay in seconds into the one that is waited."""


def no_jitter(delay_s: float) -> float:
    """The delay as it is."""
    return delay_s


@dataclass(frozen=True)
class Backoff:
    """`first_s` seconds after the first failure, then twice as long each time, up to `max_s`."""

    first_s: float
    max_s: float
    jitter: Jitter = no_jitter

    def delays(self) -> Iterator[float]:
        """The waits in seconds, without end."""
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
    """The result of `act`, tried again after each exception of the kinds `on`; others go through at once.

    After `tries` failures (None: no limit) the last exception is raised. `failed` is told of each failure that another
    try follows, and of the seconds until then.
    """
    for attempt, delay_s in enumerate(backoff.delays(), 1):
        try:
            return await act()
        except on as error:
            if attempt == tries:
                raise
            failed(error, delay_s)
        await sleep(delay_s)
    raise AssertionError("delays have no end")
