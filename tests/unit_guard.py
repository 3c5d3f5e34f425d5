"""Refuses what a unit test must not do: start a process, use a socket, sleep. `tests/unit/conftest.py` applies it."""

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PROCESS = "starts a process"
SOCKET = "uses a socket"
SLEEP = "sleeps"

REMEDIES = {
    PROCESS: "Move it to tests/service/ or tests/integration/.",
    SOCKET: "Move it to tests/service/ or tests/integration/, or use a fake of the port (httpx.MockTransport …).",
    SLEEP: "Wait for an event or a condition (tests/waiting.py), or hand the code a clock that the test moves.",
}

AUDITED = {
    "os.exec": PROCESS,
    "os.fork": PROCESS,
    "os.forkpty": PROCESS,
    "os.posix_spawn": PROCESS,
    "os.spawn": PROCESS,
    "os.system": PROCESS,
    "subprocess.Popen": PROCESS,
    "socket.bind": SOCKET,
    "socket.connect": SOCKET,
}
"""Audit events of the interpreter (https://docs.python.org/3/library/audit_events.html) and what each means."""


class Guard:
    """Fails the test that is watched where it does what a unit test must not do."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        """What was refused since `watch` began, also where the code swallowed the failure."""
        self._watching = False
        self._others: set[int | None] = set()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """For one test. Threads that earlier tests left behind go on as they do."""
        self.refused.clear()
        self._others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "sleep", self._refusing(time.sleep, "time.sleep"))
            patch.setattr(asyncio, "sleep", self._refusing_async(asyncio.sleep))
            self._watching = True
            try:
                yield
            finally:
                self._watching = False

    def on_audit(self, event: str, details: tuple[Any, ...]) -> None:
        """The interpreter's audit hook."""
        if event in AUDITED:
            self._refuse(AUDITED[event], f"{event} {details[0]}" if event == "subprocess.Popen" else event)

    def _refuse(self, deed: str, detail: str) -> None:
        if self._watching and threading.get_ident() not in self._others:
            self.refused.append(f"a unit test {deed} ({detail}). {REMEDIES[deed]}")
            pytest.fail(self.refused[-1], pytrace=False)

    def _refusing(self, sleep: Callable[[float], None], name: str) -> Callable[[float], None]:
        def guarded(seconds: float) -> None:
            self._refuse(SLEEP, f"{name}({seconds})")
            sleep(seconds)

        return guarded

    def _refusing_async(self, sleep: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def guarded(delay: float, result: Any = None) -> Any:
            if delay > 0:  # 0 lets other tasks go on and takes no time
                self._refuse(SLEEP, f"asyncio.sleep({delay})")
            return await sleep(delay, result)

        return guarded


GUARD = Guard()
sys.addaudithook(GUARD.on_audit)  # it cannot be removed, hence one for the process
