"""One supervised process: runs in its own session, is restarted when it ends, and is stopped with all descendants.

`processes.Supervisor` runs several of them.
"""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from leyden.stack.errors import CORRECT_THE_CAUSE, DISK_FULL, ProcessError, how_it_ended, remedy_for, says_disk_full
from leyden.stack.probes import Probe

DEATH_WINDOW_S = 60.0
_TAIL_BYTES = 16_384
_NO_ROOM_BYTES = 65_536
"""With less than this the disk is full, whatever the log says."""
_LITTLE_ROOM_BYTES = 2**30
"""With more than this no disk is full: what could not be written for its size was deleted again."""


@dataclass(frozen=True)
class ProcessSpec:
    """How a process is started, when it is ready, and what happens when it ends by itself.

    Processes with a higher `stage` are stopped first, those of one stage together. A process that ends `max_deaths`
    times within `death_window_s` seconds fails the stack. If it was ready before and the disk was full, it is started
    again and again instead, with a pause that grows up to `full_disk_backoff_s`.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Probe | None = None
    ready_timeout_s: float = 60.0
    stop_timeout_s: float = 20.0
    stage: int = 0
    restart: bool = True
    first_backoff_s: float = 0.5
    max_backoff_s: float = 10.0
    full_disk_backoff_s: float = 60.0
    max_deaths: int = 5
    death_window_s: float = DEATH_WINDOW_S


@dataclass(frozen=True)
class Death:
    """The end of a process that nobody asked to stop."""

    returncode: int
    """As of `Popen`: the exit status, or minus the number of the signal."""
    log_tail: str
    """The last lines of its log at that time."""


@dataclass(frozen=True)
class ProcessState:
    """The state of a process. `pid` is None when it does not run; `deaths` counts the times it ended by itself."""

    name: str
    pid: int | None
    deaths: int
    log: Path
    last_death: Death | None = None
    waits_for: str = ""
    """Why its next start is put off, if something outside must change first."""


class Child:
    """Runs one `ProcessSpec`; a thread waits for its end. Methods may be called from any thread.

    `free_disk` has the free bytes of a folder's disk. `changed` and `started` raise nothing.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        log: Path,
        env: Mapping[str, str],
        changed: Callable[[], None],
        started: Callable[[int], None],
        free_disk: Callable[[Path], int],
    ) -> None:
        self.spec = spec
        self.log = log
        self.failure: ProcessError | None = None
        self._env = dict(env)
        self._changed = changed
        self._started = started
        self._free_disk = free_disk
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths: deque[float] = deque()
        self._death_count = 0
        self._last_death: Death | None = None
        self._full_in_a_row = 0
        """How many times in a row it ended because the disk was full, each within `death_window_s`."""
        self._was_ready = spec.ready is None
        self._log_start = 0
        """Where the log of the running process begins."""
        self._began = self._spawned = time.monotonic()
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name=f"watch-{spec.name}", daemon=True)

    def start(self) -> None:
        """Start the process and watch it. Raises OSError if its program cannot be run."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._began = time.monotonic()
        self._spawn()
        self._watcher.start()

    def age(self) -> float:
        """Seconds since `start`, restarts included."""
        return time.monotonic() - self._began

    def is_ready(self) -> bool:
        """Whether the process runs and its probe, if any, succeeds."""
        ready = self.state().pid is not None and (self.spec.ready is None or self.spec.ready())
        self._was_ready = self._was_ready or ready
        return ready

    def check_in_time(self, waited_s: float) -> None:
        """Raise ProcessError if `waited_s` is longer than the process may take to become ready."""
        if waited_s > self.spec.ready_timeout_s:
            reason = f"was not ready after {waited_s:.0f} s"
            raise ProcessError(self.spec.name, reason, self.log, self.log_tail(), CORRECT_THE_CAUSE)

    def state(self) -> ProcessState:
        process = self._process
        running = process is not None and process.returncode is None
        pid = process.pid if process and running else None
        waits_for = DISK_FULL if self._full_in_a_row and not running else ""
        return ProcessState(self.spec.name, pid, self._death_count, self.log, self._last_death, waits_for)

    def ask_to_stop(self) -> None:
        """Send SIGTERM and do not restart the process. Returns at once."""
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)

    def wait_stopped(self, timeout_s: float) -> None:
        """Wait until the process has ended; kill it and its descendants after `timeout_s`."""
        self._watcher.join(timeout_s)
        process = self._process
        if self._watcher.is_alive() and process is not None:
            _kill_group(process.pid)
            self._watcher.join(10.0)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log."""
        return "\n".join(self._log_end(0).splitlines()[-lines:])

    def _log_end(self, start: int) -> str:
        """The end of the log, from byte `start` at the earliest."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(start, self.log.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")

    def _spawn(self) -> None:
        self._spawned = time.monotonic()
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self.spec.argv,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started(self._process.pid)
        self._changed()

    def _watch(self) -> None:
        while True:
            self._reap()
            self._changed()
            if self._stopping.is_set() or not self._may_restart():
                return
            if self._stopping.wait(self._backoff()):
                return
            try:
                self._spawn()
            except OSError as error:
                self._fail(f"could not be restarted ({error})", CORRECT_THE_CAUSE)
                return
            if self._stopping.is_set():
                self.ask_to_stop()

    def _reap(self) -> None:
        process = self._process
        assert process is not None
        # The leader is reaped only after its group is killed, so that its pid is not reused before.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        _kill_group(process.pid)
        process.wait()

    def _may_restart(self) -> bool:
        process = self._process
        assert process is not None
        now = time.monotonic()
        self._last_death = Death(process.returncode, self.log_tail())
        self._death_count += 1
        if self.spec.restart and self._was_ready and self._disk_was_full():
            self._full_in_a_row = 1 if now - self._spawned > self.spec.death_window_s else self._full_in_a_row + 1
            return True
        self._full_in_a_row = 0
        self._deaths.append(now)
        while now - self._deaths[0] > self.spec.death_window_s:
            self._deaths.popleft()
        if self.spec.restart and len(self._deaths) < self.spec.max_deaths:
            return True
        reason = how_it_ended(process.returncode)
        if len(self._deaths) > 1:
            window = f"{len(self._deaths)} times in {self.spec.death_window_s:.0f} s"
            reason = f"ended {window}; the last time it {reason}"
        self._fail(reason, remedy_for(process.returncode))
        return False

    def _disk_was_full(self) -> bool:
        """Whether it ended because the disk was full. The log may be on that disk, and then says nothing."""
        free = self._free_disk(self.log.parent)
        least = min(free, self._free_disk(Path(tempfile.gettempdir())))
        return free < _NO_ROOM_BYTES or says_disk_full(self._log_end(self._log_start), least < _LITTLE_ROOM_BYTES)

    def _fail(self, reason: str, remedy: str) -> None:
        self.failure = ProcessError(self.spec.name, reason, self.log, self.log_tail(), remedy)
        self._changed()

    def _backoff(self) -> float:
        if self._full_in_a_row:
            return float(min(self.spec.full_disk_backoff_s, self.spec.first_backoff_s * 2**self._full_in_a_row))
        return float(min(self.spec.max_backoff_s, self.spec.first_backoff_s * 2 ** (len(self._deaths) - 1)))


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # the group is empty
