"""Kills all processes of a stack, also those whose parents have ended.

A process belongs to a stack if its environment has the marker, if it is in the session of a process that the
supervisor started (programs that set their title, such as Valkey and vLLM, overwrite their environment), or if it
descends from such a process.

As a program it is the stack's watchdog: it reads lines of `pid start-time` from standard input until that closes,
because the supervisor ended (for any reason, kill -9 included), then kills what is left. It uses only the standard
library, as it is run as a file in Python's isolated mode.
"""

import os
import signal
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

MARKER = "LEYDEN_STACK_ID"
_PAUSE_S = 0.05
_EMPTY_PASSES = 4
_LIMIT_S = 30.0


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    session: int
    start_time: int


def start_time(pid: int) -> int:
    """Start time of the process in kernel ticks, which tells it from others with the same pid. 0 if there is none."""
    process = _look(pid)
    return process.start_time if process else 0


def find(stack_id: str, started: Collection[tuple[int, int]] = ()) -> list[int]:
    """The pids of the stack's processes, without the caller and its ancestors.

    `started` has (pid, start time) of the stack's session leaders, running or not.
    """
    wanted = f"{MARKER}={stack_id}".encode()
    alive = {process.pid: process for process in map(_look, _all_processes()) if process}
    # Leave out pids that were reused.
    sessions = {pid for pid, when in started if pid not in alive or alive[pid].start_time == when}
    found = {pid for pid, each in alive.items() if each.session in sessions or wanted in _environment(pid)}
    grown = True
    while grown:
        children = {pid for pid, each in alive.items() if each.parent in found} - found
        found |= children
        grown = bool(children)
    return sorted(found - _ancestry(os.getpid(), alive))


def sweep(stack_id: str, started: Collection[tuple[int, int]] = ()) -> int:
    """Kill the stack's processes until none is left; returns how many were killed.

    Looks several times, as a process may be between fork and exec when its parent is killed. Gives up after 30 s, when
    a process is stuck in the kernel.
    """
    killed: set[int] = set()
    empty = 0
    deadline = time.monotonic() + _LIMIT_S
    while empty < _EMPTY_PASSES and time.monotonic() < deadline:
        found = find(stack_id, started)
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
        return []  # it has ended, or belongs to another user


def _look(pid: int) -> _Process | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] == "Z":
        return None  # a zombie
    return _Process(pid, parent=int(fields[1]), session=int(fields[3]), start_time=int(fields[19]))


def _ancestry(pid: int, alive: Mapping[int, _Process]) -> set[int]:
    found = set()
    while pid in alive and pid not in found:
        found.add(pid)
        pid = alive[pid].parent
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _watch(stack_id: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pairs = [line.split() for line in sys.stdin]
    sweep(stack_id, {(int(pid), int(when)) for pid, when in pairs})


if __name__ == "__main__":
    _watch(sys.argv[1])
