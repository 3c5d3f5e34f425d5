"""What can go wrong with a local stack.

StackError                one sentence for the user, with the remedy
├── PreflightError        the machine is not ready; nothing was started
├── FetchError            a download or a conversion failed
├── AlreadyRunningError   a stack runs on this data folder
└── ProcessError          a process did not become ready, or died too often; carries its last log lines
"""


class StackError(Exception):
    """The stack cannot go on; the message says why and what to do."""


class PreflightError(StackError):
    """The machine is not ready; nothing was started."""


class FetchError(StackError):
    """Something that the stack needs could not be fetched or prepared."""


class AlreadyRunningError(StackError):
    """Another stack runs on the same data folder."""


class ProcessError(StackError):
    """A process did not become ready in time, or died too often."""

    def __init__(self, name: str, reason: str, log_tail: str) -> None:
        shown = f"\nLast lines of its log:\n{log_tail}" if log_tail else "\nIts log is empty."
        super().__init__(f"{name} {reason}.{shown}")
        self.name = name
        self.log_tail = log_tail
