"""Advisory file locks between processes. A lock is released when the last process with its descriptor ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PAUSE_S = 0.1


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock on `path`, or None if another process has it. Never blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def lock_within(path: Path, timeout_s: float) -> int | None:
    """As `try_lock`, but tries for up to `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while (descriptor := try_lock(path)) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    return descriptor


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path`; wait for it as long as necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
