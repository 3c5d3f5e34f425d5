"""The stack of a training: the one that runs on its data folder, or a new one for the time of the training."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from leyden.client.local_stack import is_locked
from leyden.stack.config import StackConfig
from leyden.stack.errors import StackError
from leyden.stack.processes import ProcessState
from leyden.stack.program import as_typed
from leyden.stack.stack import OnProgress, Stack
from leyden.stack.state import DataFolder, StackState
from leyden.training.run_file import differences, read_run_file


class RunningStack(Protocol):
    """What a training needs of a stack."""

    @property
    def config(self) -> StackConfig: ...
    @property
    def folder(self) -> DataFolder: ...
    @property
    def gateway_url(self) -> str: ...
    @property
    def api_key(self) -> str: ...
    @property
    def kafka_servers(self) -> str: ...

    def check(self) -> None:
        """Raise StackError if it cannot go on."""
        ...

    def states(self) -> list[ProcessState]: ...


@dataclass(frozen=True)
class OtherStack:
    """A stack that `leyden up` started. It is left running."""

    config: StackConfig
    folder: DataFolder
    state: StackState

    @property
    def gateway_url(self) -> str:
        return self.state.gateway_url

    @property
    def api_key(self) -> str:
        return (self.config.api_keys or (self.folder.secrets().api_key,))[0]

    @property
    def kafka_servers(self) -> str:
        return self.state.kafka_servers

    def check(self) -> None:
        """Raise StackError if it was stopped."""
        state = self.folder.read_state()
        if state.phase != "up":
            raise StackError(f"The stack on {self.folder.root} was stopped ({state.error or state.phase}).")

    def states(self) -> list[ProcessState]:
        """None: its own supervisor watches its processes."""
        return []


@contextmanager
def stack_of(config: StackConfig, tell: OnProgress) -> Iterator[RunningStack]:
    """A stack with this configuration: one that runs on the data folder stays up, a new one is stopped at the end.

    Raises StackError if the running one has other settings.
    """
    folder = DataFolder(config.data_dir)
    if is_locked(folder.lock):
        yield _running(config, folder)
        return
    with Stack(config, tell) as stack:
        yield stack


def check_running(config: StackConfig) -> None:
    """Raise StackError if a stack runs on the data folder that this training cannot use."""
    folder = DataFolder(config.data_dir)
    if is_locked(folder.lock):
        _running(config, folder)


def _running(config: StackConfig, folder: DataFolder) -> OtherStack:
    state = folder.read_state()
    if state.phase != "up":
        raise StackError(f"The stack on {folder.root} is {state.phase}; try again when it is up or down.")
    running = StackConfig.model_validate_json(folder.config.read_text())
    asked = _sections(config.run_file)
    if changed := differences(_sections(running.run_file), asked):
        raise StackError(
            f"A stack with other settings runs on {folder.root}: {'; '.join(changed)}. "
            f"Stop it with `{as_typed()} down` first, or choose another --data-dir."
        )
    missing = [str(path) for path in config.absolute().python_path if path not in running.python_path]
    if missing and running.run_file and running.run_file.parent not in config.absolute().python_path:
        raise StackError(
            f"The stack on {folder.root} does not import from {', '.join(missing)}. "
            f"Stop it with `{as_typed()} down` first."
        )
    return OtherStack(running, folder, state)


def _sections(path: Path | None) -> dict[str, object]:
    return read_run_file(path) if path is not None else {}
