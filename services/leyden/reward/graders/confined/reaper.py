"""Ends every process that another one started, also those that left its session. Linux; standard library only."""

import ctypes
import os
import signal
import time
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, number)


def become_reaper() -> None:
    """Make orphaned descendants children of this process."""
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_all(pid: int) -> None:
    """Kill child `pid` and all processes that it started; the orphans have become children of this process."""
    kill_group(pid)
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for child in children():
            kill_group(child)
        time.sleep(0.001)


def kill_group(pid: int) -> None:
    """Kill the process group that `pid` leads, and `pid`."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def children() -> list[int]:
    """The children of this process, from the process table."""
    mine, found = os.getpid(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            if parent == mine:
                found.append(int(folder.name))
    return found
