"""A stack's files for other shells: its state as JSON, and a lock that is held while it runs."""

import hashlib
import secrets
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from leyden.client.local_stack import CONFIG, LOCK, SECRETS, STATE, is_locked

Phase = Literal["starting", "up", "stopping", "down", "failed"]


class ProcessStatus(BaseModel):
    """One process. `pid` is None while it does not run; `deaths` counts the times it ended by itself."""

    name: str
    pid: int | None
    deaths: int
    log: Path
    waits_for: str = ""
    """Why its next start is put off."""


class StackState(BaseModel):
    """The content of the state file. It is valid only while the lock is held: see `DataFolder.read_state`."""

    model_config = ConfigDict(extra="ignore")

    phase: Phase = "down"
    supervisor_pid: int = 0
    doing: str = ""
    """The current step of a start."""
    error: str = ""
    engine: str = ""
    model: str = ""
    gateway_url: str = ""
    engine_url: str = ""
    kafka_servers: str = ""
    redis_url: str = ""
    timings_s: dict[str, float] = Field(default_factory=dict)
    """Seconds of each step of the start."""
    processes: list[ProcessStatus] = Field(default_factory=list)

    @property
    def is_running(self) -> bool:
        return self.phase in ("starting", "up", "stopping")


class Secrets(BaseModel):
    """Secrets of one data folder; only its owner can read the file."""

    api_key: str
    gateway_secret: str


class DataFolder:
    """The layout of a stack's data folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.lock = self.root / LOCK
        self.logs = self.root / "logs"
        self.config = self.root / CONFIG
        self._state = self.root / STATE
        self._secrets = self.root / SECRETS

    @property
    def stack_id(self) -> str:
        """Identifies the processes of this folder's stack."""
        return hashlib.blake2b(str(self.root).encode(), digest_size=8).hexdigest()

    def is_ours(self) -> bool:
        """Whether the folder was made by a stack; others must not be deleted."""
        return self.lock.exists()

    def claim(self) -> None:
        """Mark the folder as made by a stack."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.lock.touch()

    def write_state(self, state: StackState) -> None:
        _replace(self._state, state.model_dump_json(indent=2))

    def read_state(self) -> StackState:
        """The stack's state. Without a running supervisor it is `down` or `failed`, whatever the file says."""
        state = StackState.model_validate_json(self._state.read_text()) if self._state.exists() else StackState()
        if state.is_running and not is_locked(self.lock):
            gone = [each.model_copy(update={"pid": None}) for each in state.processes]
            return state.model_copy(update={"phase": "down", "error": "its supervisor was killed", "processes": gone})
        return state

    def secrets(self) -> Secrets:
        """The folder's secrets; created on the first call."""
        if not self._secrets.exists():
            made = Secrets(api_key=f"leyden-{secrets.token_hex(16)}", gateway_secret=secrets.token_hex(32))
            _replace(self._secrets, made.model_dump_json())
        return Secrets.model_validate_json(self._secrets.read_text())


def _replace(path: Path, text: str) -> None:
    """Replace a file atomically, readable only by its owner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        unfinished.touch(mode=0o600)
        unfinished.write_text(text)
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
