"""The event loop that every service runs on, and the end of what runs on it."""

import asyncio

import pytest

from leyden import service
from leyden.service import loop_factory


def test_a_service_runs_on_uvloop_where_that_is_installed() -> None:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        assert type(runner.get_loop()).__module__.split(".")[0] == "uvloop"


async def test_a_library_that_swallows_a_cancellation_does_not_keep_a_service_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "CANCEL_AGAIN_S", 0.01)
    cancellations = 0

    async def stubborn() -> None:
        nonlocal cancellations
        while cancellations < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancellations += 1
        raise asyncio.CancelledError

    async def ends() -> None:
        raise RuntimeError("what ended it")

    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="what ended it"):
            await service.until_stopped([], [stubborn, ends])
    assert cancellations == 3
