"""Says whom a command waits for, when an answer takes longer than a few seconds."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AFTER_S = 2.0


def to_stderr(line: str) -> None:
    """Print a line to standard error, as a program's messages are."""
    sys.stderr.write(f"leyden: {line}\n")
    sys.stderr.flush()


@contextmanager
def told_if_slow(whom: str, for_s: float, after_s: float = AFTER_S) -> Iterator[None]:
    """Print `waiting for <whom>` if the block takes longer than `after_s`, with its limit `for_s` unless that is 0."""
    limit = f" (for up to {for_s:g} s)" if for_s else ""
    timer = threading.Timer(after_s, to_stderr, (f"waiting for {whom}{limit}",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
