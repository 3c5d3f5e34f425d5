"""A server of ours that keeps its data in a folder: started alone, waited for, stopped. What it is, a subclass says."""

import secrets
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from leyden.stack.errors import StackError
from leyden.stack.processes import ProcessSpec, Supervisor


class LocalServer(ABC):
    """A server whose data lives in `folder` and outlives it.

    As a context manager it starts, waits until it answers, and stops at the end; within a stack only `prepare` and
    `spec` are used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._supervisor: Supervisor | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Make what the server needs in its folder; raises StackError."""

    @abstractmethod
    def spec(self) -> ProcessSpec:
        """How a supervisor starts the prepared server."""

    def start(self) -> None:
        """Prepare and start the server, and wait until it answers."""
        self.prepare()
        spec = self.spec()
        self._supervisor = Supervisor(f"{spec.name}-{secrets.token_hex(8)}", self.folder)
        self._supervisor.start(spec)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Block until the started server answers, after a restart too; raises ProcessError."""
        if self._supervisor is None:
            raise StackError("The server was not started; call start() first.")
        self._supervisor.wait_ready(*(state.name for state in self._supervisor.states()))

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
