"""One Kafka and one Redis for a run of the suite, however many workers it has.

The process in which pytest was started owns them: it starts each when it is first asked for, and stops it when the run
is over; if that process is killed, the launcher's watchdog ends them. Workers ask for them over a socket.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Client, Listener
from pathlib import Path

ADDRESS = "LEYDEN_TEST_SERVERS"
"""The environment variable that names the socket to the workers."""


def kafka(folder: Path, stack: ExitStack) -> str:
    """Start a broker; its bootstrap servers."""
    from leyden.stack.kafka import KafkaBroker

    return stack.enter_context(KafkaBroker(folder / "kafka")).bootstrap_servers


def redis(folder: Path, stack: ExitStack) -> str:
    """Start a Redis; its URL."""
    from leyden.stack.redis import RedisServer

    return stack.enter_context(RedisServer(folder / "redis")).url


STARTS: dict[str, Callable[[Path, ExitStack], str]] = {"kafka": kafka, "redis": redis}


class SharedServers:
    """Starts and owns the servers; answers one request at a time, so that each is started once."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="leyden-tests-"))
        self._running = ExitStack()
        self._urls: dict[str, str] = {}
        self._listener = Listener(str(self._folder / "socket"), "AF_UNIX")
        self._thread = threading.Thread(target=self._answer, name="shared servers", daemon=True)
        self._thread.start()
        os.environ[ADDRESS] = str(self._folder / "socket")

    def _answer(self) -> None:
        while True:
            with self._listener.accept() as connection:
                name = connection.recv()
                if name is None:
                    return
                connection.send(self._url(name))

    def _url(self, name: str) -> tuple[str, str]:
        """The server's address and "", or "" and why it could not be started."""
        try:
            if name not in self._urls:
                self._urls[name] = STARTS[name](self._folder, self._running)
        except Exception as error:  # noqa: BLE001 - told to the test that asked
            return "", repr(error)
        return self._urls[name], ""

    def close(self) -> None:
        """Stop whatever was started, and delete its data."""
        with Client(os.environ.pop(ADDRESS), "AF_UNIX") as connection:
            connection.send(None)
        self._thread.join()
        self._listener.close()
        self._running.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def address_of(name: str) -> str:
    """Where the run's server `name` (a key of `STARTS`) is; raises RuntimeError where it could not be started."""
    with Client(os.environ[ADDRESS], "AF_UNIX") as connection:
        connection.send(name)
        url, error = connection.recv()
    if error:
        raise RuntimeError(f"the tests' {name} could not be started: {error}")
    return str(url)
