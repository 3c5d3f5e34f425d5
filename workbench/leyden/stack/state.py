"""What a stack tells other shells about itself: one JSON file in its data folder, and a lock that says it runs.

Reads and writes these files only; starts and ends nothing.
"""

import hashlib
import secrets
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from leyden.stack.locks import is_locked

Phase = Literal["starting", "up", "stopping", "down", "failed"]


class ProcessStatus(BaseModel):
    """One process. `pid` is None while it does not run; `deaths` counts the times it ended unasked."""

    name: str
    pid: int | None
    deaths: int
    log: Path


class StackState(BaseModel):
    """The state file's content. It is true only while the lock is held: see `read_state`."""

    model_config = ConfigDict(extra="ignore")

    phase: Phase = "down"
    supervisor_pid: int = 0
    doing: str = ""
    """The step that a start is at."""
    error: str = ""
    engine: str = ""
    model: str = ""
    gateway_url: str = ""
    engine_url: str = ""
    kafka_servers: str = ""
    redis_url: str = ""
    timings_s: dict[str, float] = Field(default_factory=dict)
    """Seconds that each step of the start took."""
    processes: list[ProcessStatus] = Field(default_factory=list)

    @property
    def is_running(self) -> bool:
        return self.phase in ("starting", "up", "stopping")


class Secrets(BaseModel):
    """Made once per data folder; readable by its owner only."""

    api_key: str
    gateway_secret: str


class DataFolder:
    """The layout of a stack's data folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.lock = self.root / "stack.lock"
        self.logs = self.root / "logs"
        self.config = self.root / "config.json"
        self._state = self.root / "state.json"
        self._secrets = self.root / "secrets.json"

    @property
    def stack_id(self) -> str:
        """Marks the processes of the stack on this folder."""
        return hashlib.blake2b(str(self.root).encode(), digest_size=8).hexdigest()

    def is_ours(self) -> bool:
        """Whether a stack has run here or a reset has claimed it: nothing else may be emptied."""
        return self.lock.exists()

    def claim(self) -> None:
        """Mark the folder as a stack's own."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.lock.touch()

    def write_state(self, state: StackState) -> None:
        _replace(self._state, state.model_dump_json(indent=2))

    def read_state(self) -> StackState:
        """The stack's state; `down` (or its failure) when no supervisor lives, whatever was written last."""
        state = StackState.model_validate_json(self._state.read_text()) if self._state.exists() else StackState()
        if state.is_running and not is_locked(self.lock):
            gone = [each.model_copy(update={"pid": None}) for each in state.processes]
            return state.model_copy(update={"phase": "down", "error": "its supervisor was killed", "processes": gone})
        return state

    def secrets(self) -> Secrets:
        """The folder's secrets, made on the first call."""
        if not self._secrets.exists():
            made = Secrets(api_key=f"leyden-{secrets.token_hex(16)}", gateway_secret=secrets.token_hex(32))
            _replace(self._secrets, made.model_dump_json())
        return Secrets.model_validate_json(self._secrets.read_text())


def _replace(path: Path, text: str) -> None:
    """Write a file in one step, for its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.rename(path)
