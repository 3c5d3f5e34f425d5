"""One supervised process: started in a session of its own, started again when it dies, ended with all its descendants.

Knows nothing of other processes; `processes.Supervisor` holds several.
"""

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from leyden.stack.errors import ProcessError
from leyden.stack.probes import Probe

_TAIL_BYTES = 16_384


@dataclass(frozen=True)
class ProcessSpec:
    """How a process is started, how it is known to be ready, and what happens when it dies.

    `stage` orders the end: higher stages are ended first, a stage's processes together. A process that dies
    `max_deaths` times within `death_window_s` seconds fails the stack.
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
    max_deaths: int = 5
    death_window_s: float = 60.0


@dataclass(frozen=True)
class ProcessState:
    """What is known of a process now. `pid` is None when it does not run; `deaths` counts unasked ends."""

    name: str
    pid: int | None
    deaths: int
    log: Path


class Child:
    """Runs one `ProcessSpec`; a thread waits for the process's end. Methods may be called from any thread."""

    def __init__(
        self,
        spec: ProcessSpec,
        log: Path,
        env: Mapping[str, str],
        changed: Callable[[], None],
        started: Callable[[int], None],
    ) -> None:
        self.spec = spec
        self.log = log
        self.failure: ProcessError | None = None
        self._env = dict(env)
        self._changed = changed
        self._started = started
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths: deque[float] = deque()
        self._death_count = 0
        self._began = time.monotonic()
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name=f"watch-{spec.name}", daemon=True)

    def start(self) -> None:
        """Start the process and watch over it; raises OSError when its program cannot be run."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._began = time.monotonic()
        self._spawn()
        self._watcher.start()

    def age(self) -> float:
        """Seconds since `start`, restarts included."""
        return time.monotonic() - self._began

    def is_ready(self) -> bool:
        """Whether the process runs and its probe, if it has one, says yes."""
        return self.state().pid is not None and (self.spec.ready is None or self.spec.ready())

    def check_in_time(self, waited_s: float) -> None:
        """Raise ProcessError when it was waited for longer than it may take to become ready."""
        if waited_s > self.spec.ready_timeout_s:
            raise ProcessError(self.spec.name, f"was not ready after {waited_s:.0f} s", self.log_tail())

    def state(self) -> ProcessState:
        process = self._process
        running = process is not None and process.returncode is None
        return ProcessState(self.spec.name, process.pid if process and running else None, self._death_count, self.log)

    def ask_to_stop(self) -> None:
        """Send SIGTERM and start it no more. Returns at once."""
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)

    def wait_stopped(self, timeout_s: float) -> None:
        """Wait for the end asked for; after `timeout_s` kill the process. Its descendants end with it."""
        self._watcher.join(timeout_s)
        process = self._process
        if self._watcher.is_alive() and process is not None:
            _kill_group(process.pid)
            self._watcher.join(10.0)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
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
                self._fail(f"could not be started again ({error})")
                return
            if self._stopping.is_set():
                self.ask_to_stop()

    def _reap(self) -> None:
        process = self._process
        assert process is not None
        # The dead leader is left unreaped until its group is killed: till then nobody else can get its number.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        _kill_group(process.pid)
        process.wait()

    def _may_restart(self) -> bool:
        process = self._process
        assert process is not None
        now = time.monotonic()
        self._death_count += 1
        self._deaths.append(now)
        while now - self._deaths[0] > self.spec.death_window_s:
            self._deaths.popleft()
        if self.spec.restart and len(self._deaths) < self.spec.max_deaths:
            return True
        times = "" if len(self._deaths) == 1 else f" {len(self._deaths)} times in {self.spec.death_window_s:.0f} s"
        self._fail(f"died{times}, last with status {process.returncode}")
        return False

    def _fail(self, reason: str) -> None:
        self.failure = ProcessError(self.spec.name, reason, self.log_tail())
        self._changed()

    def _backoff(self) -> float:
        return float(min(self.spec.max_backoff_s, self.spec.first_backoff_s * 2 ** (len(self._deaths) - 1)))


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left in it
