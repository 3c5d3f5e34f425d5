"""Kills programs and agent processes after their runner was killed (`kill -9`).

A small helper process gets lines `watch N` and `forget N` on its standard input, where N is a process id, or minus the
id of a process group. When the input closes or the runner has died, the helper kills what is still watched. The class
is the runner's side; `main` is the helper, which runs without site-packages.
"""

import atexit
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

CLOSE_S = 2.0
READ_BYTES = 64 * 1024


class Guard:
    """Handle to the helper, which is started on first use. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The helper's process id; None before its start."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the helper now, so that a later `watch` takes effect at once. Raises OSError."""
        with self._lock:
            self._started()

    def watch(self, number: int) -> None:
        """Kill this process or group when we die."""
        with self._lock:
            self._watched.add(number)
            self._write(f"watch {number}\n")

    def forget(self, number: int) -> None:
        """Stop watching a process that has ended, as its id may be reused."""
        with self._lock:
            self._watched.discard(number)
            self._write(f"forget {number}\n")

    def close(self) -> None:
        """Stop the helper, which kills what is still watched."""
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def after_fork(self) -> None:
        """In a forked child: leave the helper to the parent."""
        process, self._process = self._process, None
        self._lock, self._watched = threading.Lock(), set()
        if process is not None and process.stdin is not None:
            process.returncode = 0  # not our child: do not wait for it
            process.stdin.close()

    def _write(self, line: str) -> None:
        """Send a line. If the helper was killed, start another one with all that is watched."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(line.encode())
        except BrokenPipeError:
            self.close()
            self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            self._process = process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__)), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                bufsize=0,
            )
            assert process.stdin is not None
            process.stdin.write("".join(f"watch {number}\n" for number in self._watched).encode())
        return self._process


def main(parent: int) -> None:
    """The helper: wait for the end of the input or of `parent`, then kill what is watched."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a draining runner still needs the helper
    for watched in _watched_at_end([0, *_death_of(parent)]):
        _kill(watched)


def _death_of(process: int) -> list[int]:
    """A descriptor that is readable once the process has died. The pipe is not enough: children inherit it."""
    try:
        return [os.pidfd_open(process)]
    except (AttributeError, OSError):
        return []


def _watched_at_end(sources: list[int]) -> set[int]:
    watched: set[int] = set()
    rest = b""
    while 0 in select.select(sources, [], [])[0]:
        data = os.read(0, READ_BYTES)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            word, number = line.split()
            (watched.add if word == b"watch" else watched.discard)(int(number))
    return watched


def _kill(number: int) -> None:
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        if number < 0:  # it has not created its own group yet
            _kill(-number)
    except PermissionError:
        return  # the id was reused by another user's process


guard = Guard()
"""The guard of this process."""

if __name__ == "__main__":
    main(int(sys.argv[1]))
else:
    atexit.register(guard.close)
    os.register_at_fork(after_in_child=guard.after_fork)
