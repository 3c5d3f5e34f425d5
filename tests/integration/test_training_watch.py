"""What a process that ends during a training puts on the screen: which one, its last log lines, and what to do."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
import typer
from rich.console import Console

from leyden.cli import shell
from leyden.stack.processes import ProcessSpec, Supervisor
from leyden.training.schedule import Schedule
from leyden.training.state import TrainState
from leyden.training.task_set import task_set
from leyden.training.view import View
from leyden.training.watch import ProcessWatch

ENDS = "print('loading\\nno kernel image [/cuda] for this device', flush=True); raise SystemExit(3)"
RUNS = "import time; print('serving', flush=True); time.sleep(600)"


def engine(code: str, **settings: object) -> ProcessSpec:
    return ProcessSpec(name="engine", argv=(sys.executable, "-S", "-c", code), **settings)  # type: ignore[arg-type]


def until(true: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


class Screen:
    """A training's screen, on a terminal or in a file, and the watch on one supervisor."""

    def __init__(self, supervisor: Supervisor, terminal: bool) -> None:
        self.text = StringIO()
        self.console = Console(file=self.text, width=160, force_terminal=terminal, color_system=None)
        self.state = TrainState(Schedule(updates=9, groups_per_step=8), task_set([{"task_id": "t"}], 0))
        self.view = View(self.console)
        self.watch = ProcessWatch((supervisor,), self.state, self.view)

    def update(self) -> str:
        """What a turn of the loop adds to the screen."""
        before = len(self.text.getvalue())
        self.watch.check()
        self.view.show(self.state)
        return self.text.getvalue()[before:]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(f"watch-{tmp_path.name}-{os.getpid()}", tmp_path) as made:
        yield made


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "no terminal"])
def test_a_process_that_ends_is_shown_once_with_its_last_lines_and_what_to_do(
    supervisor: Supervisor, tmp_path: Path, terminal: bool
) -> None:
    screen = Screen(supervisor, terminal)
    supervisor.start(engine(ENDS, first_backoff_s=600.0, max_backoff_s=600.0))
    assert until(lambda: supervisor.states()[0].deaths == 1)
    shown = screen.update()
    assert "engine exited with status 3; restarting it (restart 1)." in shown
    assert f"Last lines of its log, {tmp_path / 'engine.log'}:" in shown
    assert "  no kernel image [/cuda] for this device" in shown
    assert "Training continues when engine is ready again." in shown
    assert "Correct the cause that its log names" in shown
    assert "exited" not in screen.update()
    assert screen.state.notes == ["engine was restarted (1)"]
    screen.view.close()


def test_a_killed_process_points_to_memory(supervisor: Supervisor) -> None:
    screen = Screen(supervisor, terminal=False)
    supervisor.start(engine(RUNS, first_backoff_s=600.0, max_backoff_s=600.0))
    assert until(lambda: "serving" in supervisor.log_tail("engine"))
    pid = supervisor.states()[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: supervisor.states()[0].deaths == 1)
    shown = screen.update()
    assert "engine was killed by SIGKILL" in shown
    assert "  serving" in shown
    assert "ran out of memory" in shown


def test_a_process_that_keeps_ending_stops_the_training_with_its_last_lines(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(supervisor, terminal=False)
    monkeypatch.setattr(shell, "console", screen.console)
    supervisor.start(engine(ENDS, first_backoff_s=0.01, max_backoff_s=0.01))
    assert supervisor.wait_failed(30.0)
    with pytest.raises(typer.Exit) as ended, shell.clear_errors():
        screen.update()
    shown = screen.text.getvalue()
    assert ended.value.exit_code == 1
    assert "engine ended 5 times in 60 s; the last time it exited with status 3." in shown
    assert "no kernel image [/cuda] for this device" in shown
    assert "Correct the cause that its log names, then start again." in shown
