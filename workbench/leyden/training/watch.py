"""Watches a training's processes: shows which one ended, its last log lines and what to do."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from leyden.stack.errors import how_it_ended, last_lines, remedy_for
from leyden.stack.processes import ProcessState
from leyden.training.state import TrainState
from leyden.training.view import View


class Supervised(Protocol):
    """A stack or a supervisor."""

    def check(self) -> None:
        """Raise the ProcessError of a process that ended too often."""
        ...

    def states(self) -> list[ProcessState]: ...


class ProcessWatch:
    """Call `check` often: it warns on the view once per end, and raises ProcessError when a process is given up."""

    def __init__(self, supervised: Sequence[Supervised], state: TrainState, view: View) -> None:
        self._supervised = supervised
        self._state = state
        self._view = view
        self._shown: dict[str, int] = {}

    def check(self) -> None:
        """Show what ended since the last call. Raises ProcessError."""
        for one in self._supervised:
            one.check()
        for process in self._new_deaths():
            self._view.warn(warning(process))
            self._state.note(f"{process.name} was restarted ({process.deaths})")

    def _new_deaths(self) -> Iterator[ProcessState]:
        for one in self._supervised:
            for process in one.states():
                if process.last_death is not None and process.deaths > self._shown.get(process.name, 0):
                    self._shown[process.name] = process.deaths
                    yield process


def warning(process: ProcessState) -> str:
    """Which process ended and how, its last log lines, and what to do."""
    death = process.last_death
    assert death is not None
    return (
        f"{process.name} {how_it_ended(death.returncode)}; restarting it (restart {process.deaths}).\n"
        f"{last_lines(process.log, death.log_tail)}\n"
        f"Training continues when {process.name} is ready again. If it keeps ending: {remedy_for(death.returncode)}"
    )
