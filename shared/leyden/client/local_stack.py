"""Finds the stack that runs on this machine: its gateway and key, from the files in its data folder."""

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDERS = (Path(".leyden/stack"), Path(".leyden/demo"))
"""Where `leyden up` and `leyden demo` keep their stacks, in the working directory."""

LOCK, CONFIG, STATE, SECRETS = "stack.lock", "config.json", "state.json", "secrets.json"
"""Files in such a folder; a stack that runs holds the lock."""


@dataclass(frozen=True)
class LocalStack:
    """A running stack."""

    gateway_url: str
    api_key: str
    """The first of its configuration, else the one that was made for it."""


def data_folder(folders: Sequence[Path] = FOLDERS) -> Path:
    """The folder of the stack that runs, else of the one used last, else the first of `folders`."""
    used = [folder for folder in folders if (folder / CONFIG).is_file()]
    return max(used, key=lambda folder: (is_locked(folder / LOCK), _used_at(folder)), default=folders[0])


def local_stack(folder: Path) -> LocalStack | None:
    """The stack that runs in `folder`; None if none does."""
    if not is_locked(folder / LOCK):
        return None
    try:
        url = json.loads((folder / STATE).read_text())["gateway_url"]
        keys = json.loads((folder / CONFIG).read_text()).get("api_keys")
        key = keys[0] if keys else json.loads((folder / SECRETS).read_text())["api_key"]
    except (OSError, ValueError, KeyError):
        return None
    return LocalStack(url, key) if url else None


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on `path`."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _used_at(folder: Path) -> float:
    path = folder / STATE
    return path.stat().st_mtime if path.exists() else 0.0
