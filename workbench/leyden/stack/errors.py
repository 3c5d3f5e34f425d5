"""Errors of a local stack. Each message says what is wrong and what to do.

StackError                the stack cannot go on
├── PreflightError        the machine is not ready; nothing was started
├── FetchError            a download or a conversion failed
├── AlreadyRunningError   another stack runs on this data folder
└── ProcessError          a process did not become ready, or ended too often; has its last log lines
"""

import signal
from pathlib import Path


class StackError(Exception):
    """The stack cannot go on; the message says why and what to do."""


class PreflightError(StackError):
    """The machine is not ready; nothing was started."""


class FetchError(StackError):
    """Something that the stack needs could not be fetched or converted."""


class AlreadyRunningError(StackError):
    """Another stack runs on the same data folder."""


class ProcessError(StackError):
    """A process did not become ready in time, or ended too often."""

    def __init__(self, name: str, reason: str, log: Path, log_tail: str, remedy: str) -> None:
        super().__init__(f"{name} {reason}.\n{last_lines(log, log_tail)}\n{remedy}")
        self.name = name
        self.log_tail = log_tail


CORRECT_THE_CAUSE = "Correct the cause that its log names, then start again."


DISK_FULL = "the disk is full; it goes on when there is room"
_NO_SPACE, _QUOTA = "No space left on device", "Disk quota exceeded"


def says_disk_full(log_tail: str, little_is_free: bool) -> bool:
    """Whether a process's last log lines say that its disk was full.

    A full /dev/shm gives the same error as a full disk, so it counts only where little is free; quotas do not show in
    what is free.
    """
    return _QUOTA in log_tail or (little_is_free and _NO_SPACE in log_tail)


def how_it_ended(returncode: int) -> str:
    """`was killed by SIGKILL` or `exited with status 1`, from a `Popen.returncode`."""
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"exited with status {returncode}"


def remedy_for(returncode: int) -> str:
    """What the user can do about a process that ended by itself."""
    if returncode == -signal.SIGKILL:
        return "If nobody killed it, the machine ran out of memory: close other programs or choose a smaller model."
    return CORRECT_THE_CAUSE


def last_lines(log: Path, tail: str) -> str:
    """The end of a log, under a line that names the file."""
    if not tail:
        return f"Its log, {log}, is empty."
    return "\n".join([f"Last lines of its log, {log}:", *(f"  {line}" for line in tail.splitlines())])
