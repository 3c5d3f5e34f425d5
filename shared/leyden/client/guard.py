"""Keeps programs and processes from outliving a runner that was killed with no chance to end them.

One small process watches for our death; it is started with the first program and ends with us.
"""

import atexit
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

PROGRAM = Path(__file__).with_name("guard_process.py")
CLOSE_S = 2.0


class Guard:
    """Told which processes (or, with a minus sign, process groups) end with us. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Have it ready, so that nothing is unwatched for the time that takes. Raises OSError."""
        with self._lock:
            self._started()

    def watch(self, number: int) -> None:
        """It ends with us."""
        with self._lock:
            self._watched.add(number)
            self._tell(f"watch {number}\n")

    def forget(self, number: int) -> None:
        """It has ended."""
        with self._lock:
            self._watched.discard(number)
            self._tell(f"forget {number}\n")

    def close(self) -> None:
        """End it; what is still watched ends too."""
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
        """In a forked child: it guards the parent."""
        process, self._process = self._process, None
        self._lock, self._watched = threading.Lock(), set()
        if process is not None and process.stdin is not None:
            process.returncode = 0  # not ours to wait for
            process.stdin.close()

    def _tell(self, line: str) -> None:
        """A guard that was killed is replaced, and told all."""
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
                [sys.executable, "-I", "-S", str(PROGRAM), str(os.getpid())],
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


guard = Guard()
atexit.register(guard.close)
os.register_at_fork(after_in_child=guard.after_fork)
