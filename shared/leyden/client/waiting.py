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
    """Print `waiting for <whom>`, with the limit of `for_s` seconds, if the block takes longer than `after_s`."""
    timer = threading.Timer(after_s, to_stderr, (f"waiting for {whom} (for up to {for_s:.0f} s)",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
