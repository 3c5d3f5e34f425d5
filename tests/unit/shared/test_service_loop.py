"""The event loop that every service runs on."""

import asyncio

from leyden.service import _loop_factory


def test_a_service_runs_on_uvloop_where_that_is_installed() -> None:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        assert type(runner.get_loop()).__module__.split(".")[0] == "uvloop"
