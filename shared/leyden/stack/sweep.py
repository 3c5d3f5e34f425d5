"""Ends every process of a stack, found by a marker in its environment, whoever its parent is by now.

As a program it is the stack's watchdog: it reads standard input until that closes, which happens when the supervisor
ends for whatever reason (kill -9 included), then kills what is left. Stands alone on the standard library: it is
started as a file in Python's isolated mode.
"""

import os
import signal
import sys
import time
from pathlib import Path

MARKER = "LEYDEN_STACK_ID"
_PAUSE_S = 0.05
_EMPTY_PASSES = 4
_LIMIT_S = 30.0


def find(stack_id: str) -> list[int]:
    """The ids of all processes that carry the marker, the caller and its ancestors left out."""
    wanted = f"{MARKER}={stack_id}".encode()
    own = _ancestry(os.getpid())
    return [pid for pid in _all_processes() if pid not in own and wanted in _environment(pid)]


def sweep(stack_id: str) -> int:
    """Kill all processes that carry the marker until none is left; how many were killed.

    Passes several times: a process may be between its fork and its exec when its parent dies. Gives up after 30 s
    (a process stuck in the kernel).
    """
    killed: set[int] = set()
    empty = 0
    deadline = time.monotonic() + _LIMIT_S
    while empty < _EMPTY_PASSES and time.monotonic() < deadline:
        found = find(stack_id)
        for pid in found:
            _kill(pid)
        killed.update(found)
        empty = 0 if found else empty + 1
        time.sleep(_PAUSE_S)
    return len(killed)


def _all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []  # it has ended, or is another user's


def _ancestry(pid: int) -> set[int]:
    found = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        pid = _parent(pid)
    return found


def _parent(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(status.rpartition(")")[2].split()[1])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _watch(stack_id: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while os.read(sys.stdin.fileno(), 4096):
        pass
    sweep(stack_id)


if __name__ == "__main__":
    _watch(sys.argv[1])
