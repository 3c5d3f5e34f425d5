"""What a unit test must not do fails it."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from unit_guard import GUARD


def connect() -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", 9))


def listen() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))


async def start() -> None:
    await asyncio.create_subprocess_exec(sys.executable, "-V")


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        (lambda: subprocess.run([sys.executable, "-V"], check=False), "starts a process"),
        (lambda: asyncio.run(start()), "starts a process"),
        (os.fork, "starts a process"),
        (connect, "uses a socket"),
        (listen, "uses a socket"),
        (lambda: time.sleep(0.001), r"sleeps \(time.sleep"),
        (lambda: asyncio.run(asyncio.sleep(0.001)), r"sleeps \(asyncio.sleep"),
    ],
)
def test_it_is_refused_and_says_what_to_do(deed: Callable[[], object], said: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=rf"{said}.*\. (Move it|Wait for)"):
        deed()
    GUARD.refused.clear()


def test_what_code_swallows_is_known_all_the_same() -> None:
    def swallow() -> None:
        with contextlib.suppress(BaseException):
            time.sleep(0.001)

    thread = threading.Thread(target=swallow)
    thread.start()
    thread.join()
    assert len(GUARD.refused) == 1
    GUARD.refused.clear()


async def test_letting_other_tasks_go_on_is_no_sleep() -> None:
    await asyncio.sleep(0)
