"""How tests wait: for a condition, with a limit; never for time to pass."""

import asyncio
import time
from collections.abc import Callable

POLL_S = 0.005


async def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
    """Return as soon as `condition` holds; AssertionError after `within_s` seconds, a limit for a busy machine."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not hold within {within_s} s"
        await asyncio.sleep(POLL_S)


def wait_until(condition: Callable[[], object], within_s: float = 30.0) -> None:
    """The same for code that runs in threads and processes."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not hold within {within_s} s"
        time.sleep(POLL_S)


async def turns(count: int = 20) -> None:
    """Let every task that can run go on, `count` times: enough for what waits for no other thread, socket or clock."""
    for _ in range(count):
        await asyncio.sleep(0)
