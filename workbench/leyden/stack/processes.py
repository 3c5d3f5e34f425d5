"""Runs several processes. However the supervisor itself ends, none of them is left.

Every process has `LEYDEN_STACK_ID` in its environment and leads its own session. When the supervisor is gone, a
watchdog process kills all of them with their descendants (see `sweep`).
"""

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

from leyden.stack import sweep
from leyden.stack.child import Child, ProcessSpec, ProcessState
from leyden.stack.errors import StackError
from leyden.stack.preflight import ThisMachine

__all__ = ["OnReady", "OnWait", "ProcessSpec", "ProcessState", "Supervisor"]

OnReady = Callable[[str, float], None]
"""Called with a process's name and the seconds since its start."""
OnWait = Callable[[Sequence[str], float], None]
"""Called with the names of the processes that are not ready, and the seconds since the first of them started."""

_PROBE_PAUSE_S = 0.1
_REPORT_EVERY_S = 0.5
_TELL_AGAIN_S = 1.0
_HERE = ThisMachine()


class Supervisor:
    """Starts processes, waits until they are ready, restarts them, stops them all.

    `stack_id` marks its processes; the descriptors in `held` (locks) stay open until the last process is gone.
    `on_change` is called, from any thread, after a process was started, ended or failed. If it raises OSError, as on a
    full disk, the processes go on, and it is called again later: see `wait_failed`.
    """

    def __init__(
        self,
        stack_id: str,
        log_folder: Path,
        held: Iterable[int] = (),
        on_change: Callable[[], None] = lambda: None,
        free_disk: Callable[[Path], int] = _HERE.free_disk,
    ) -> None:
        self.stack_id = stack_id
        self.log_folder = log_folder
        self._children: dict[str, Child] = {}
        self._on_change = on_change
        self._untold = threading.Event()
        self._free_disk = free_disk
        self._failed = threading.Event()
        self._held = tuple(held)
        self._started: list[tuple[int, int]] = []
        self._watchdog_guard = threading.Lock()
        self._watchdog = self._start_watchdog()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, spec: ProcessSpec) -> None:
        """Start a process and return. Raises StackError if its name is taken or its program cannot be run."""
        if spec.name in self._children:
            raise StackError(f"A process named {spec.name} was already started.")
        environment = {**os.environ, **spec.env, sweep.MARKER: self.stack_id}
        log = self.log_folder / f"{spec.name}.log"
        child = Child(spec, log, environment, self._changed, self._register, self._free_disk)
        self._children[spec.name] = child
        try:
            child.start()
        except OSError as error:
            del self._children[spec.name]
            raise StackError(f"{spec.name} could not be started ({error}). Check the installation.") from error

    def wait_ready(self, *names: str, on_wait: OnWait | None = None, on_ready: OnReady | None = None) -> None:
        """Block until the named processes (default: all) are ready. Raises ProcessError if one fails or takes too long.

        `on_ready` is called for each one as it becomes ready, `on_wait` now and then for those that are not.
        """
        pending = [self._children[name] for name in names or tuple(self._children)]
        began = reported = time.monotonic()
        while pending:
            for child in [each for each in pending if each.is_ready()]:
                pending.remove(child)
                if on_ready is not None:
                    on_ready(child.spec.name, child.age())
            self.check()
            for child in pending:
                child.check_in_time(time.monotonic() - began)
            if pending and on_wait is not None and time.monotonic() - reported >= _REPORT_EVERY_S:
                reported = time.monotonic()
                on_wait([child.spec.name for child in pending], max(child.age() for child in pending))
            if pending:
                time.sleep(_PROBE_PAUSE_S)

    def check(self) -> None:
        """Raise the ProcessError of a process that ended too often."""
        for child in self._children.values():
            if child.failure is not None:
                raise child.failure

    def wait_failed(self, timeout_s: float | None = None) -> bool:
        """Block until a process has failed; False if `timeout_s` passed first.

        Meanwhile `on_change` is called again where it raised OSError.
        """
        deadline = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
        while not self._failed.wait(max(0.0, min(_TELL_AGAIN_S, deadline - time.monotonic()))):
            if self._untold.is_set():
                self._changed()
            if time.monotonic() >= deadline:
                return False
        return True

    def states(self) -> list[ProcessState]:
        """All processes, in the order of their start."""
        return [child.state() for child in list(self._children.values())]

    def log_tail(self, name: str, lines: int = 20) -> str:
        return self._children[name].log_tail(lines)

    def stop(self) -> None:
        """Stop all processes, the highest stage first, and whatever they left behind. May be called again."""
        ordered = sorted(self._children.values(), key=lambda child: -child.spec.stage)
        for _, together in groupby(ordered, key=lambda child: child.spec.stage):
            wave = list(together)
            for child in wave:
                child.ask_to_stop()
            deadline = time.monotonic() + max(child.spec.stop_timeout_s for child in wave)
            for child in wave:
                child.wait_stopped(max(0.0, deadline - time.monotonic()))
        self._end_watchdog()

    def _changed(self) -> None:
        if any(child.failure is not None for child in list(self._children.values())):
            self._failed.set()
        self._untold.clear()
        try:
            self._on_change()
        except OSError:
            self._untold.set()

    def _register(self, pid: int) -> None:
        """Tell the watchdog about a new process; replace the watchdog if it was killed."""
        with self._watchdog_guard:
            self._started.append((pid, sweep.start_time(pid)))
            if self._watchdog.poll() is None:
                self._tell_watchdog(self._started[-1:])
            else:
                self._end_watchdog()
                self._watchdog = self._start_watchdog()
                self._tell_watchdog(self._started)

    def _tell_watchdog(self, started: Iterable[tuple[int, int]]) -> None:
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write("".join(f"{pid} {when}\n" for pid, when in started).encode())

    def _start_watchdog(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", sweep.__file__, self.stack_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=self._held,
            start_new_session=True,
            cwd="/",
        )

    def _end_watchdog(self) -> None:
        if self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
        self._watchdog.wait()
