"""Advisory file locks between processes. A lock is gone when every process that holds its descriptor is gone."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PAUSE_S = 0.1


def try_lock(path: Path) -> int | None:
    """An open descriptor that holds the lock on `path`, or None when another process holds it. Never blocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def lock_within(path: Path, timeout_s: float) -> int | None:
    """As `try_lock`, tried again until `timeout_s` has passed."""
    deadline = time.monotonic() + timeout_s
    while (descriptor := try_lock(path)) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock on `path` now."""
    if not path.exists():
        return False
    descriptor = try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path`, waiting as long as another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
