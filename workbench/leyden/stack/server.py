"""Base class of Kafka and Redis as local servers, which can also run without a stack."""

import secrets
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from leyden.stack.errors import StackError
from leyden.stack.processes import ProcessSpec, Supervisor


class LocalServer(ABC):
    """A server with its data in `folder`.

    As a context manager it starts the server, waits until it is ready, and stops it at the end. A stack uses only
    `prepare` and `spec`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._supervisor: Supervisor | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Create what the server needs in its folder. Raises StackError."""

    @abstractmethod
    def spec(self) -> ProcessSpec:
        """The process of the prepared server."""

    def start(self) -> None:
        """Prepare and start the server, and wait until it is ready."""
        self.prepare()
        spec = self.spec()
        self._supervisor = Supervisor(f"{spec.name}-{secrets.token_hex(8)}", self.folder)
        self._supervisor.start(spec)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Block until the started server is ready, also after a restart. Raises ProcessError."""
        if self._supervisor is None:
            raise StackError("The server was not started; call start() first.")
        self._supervisor.wait_ready(*(state.name for state in self._supervisor.states()))

    def stop(self) -> None:
        """Stop the server. Its data is kept."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
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
