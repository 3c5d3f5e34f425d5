"""Work that is done unless its caller leaves first."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from leyden.gateway.http.model_api import unless_gone
from waiting import turns


class Caller:
    """An ASGI `receive`: the caller's body, then nothing until `leave`."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()

    async def receive(self) -> MutableMapping[str, Any]:
        await self.leave.wait()
        return {"type": "http.disconnect"}


async def test_work_that_is_done_gives_its_result_and_the_lookout_ends() -> None:
    caller = Caller()

    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await unless_gone(work(), caller.receive) == 7
    caller.leave.set()
    await turns()
    assert len(asyncio.all_tasks()) == 1


async def test_a_caller_who_leaves_cancels_the_work_and_not_the_task_around_it() -> None:
    caller, ended = Caller(), []

    async def work() -> int:
        caller.leave.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)
        return 7

    assert await unless_gone(work(), caller.receive) is None
    assert ended == [True]
    await turns()


async def test_a_caller_who_leaves_in_the_same_moment_as_the_work_is_done_harms_nothing() -> None:
    for delay in range(6):
        caller = Caller()

        async def work(caller: Caller = caller, delay: int = delay) -> int:
            caller.leave.set()
            for _ in range(delay):
                await asyncio.sleep(0)
            return 7

        assert await unless_gone(work(), caller.receive) in (7, None)
        await turns()


async def test_being_cancelled_from_outside_is_being_cancelled() -> None:
    running = asyncio.create_task(unless_gone(asyncio.Event().wait(), Caller().receive))
    await turns()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_the_work_raises_is_raised() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await unless_gone(work(), Caller().receive)
