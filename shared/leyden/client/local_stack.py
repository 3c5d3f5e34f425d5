"""Finds the stack that runs on this machine: its gateway and key, from the files in its data folder."""

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDERS = (Path(".leyden/stack"), Path(".leyden/demo"))
"""Where `leyden up` and `leyden demo` keep their stacks, in the working directory."""


@dataclass(frozen=True)
class LocalStack:
    """A running stack."""

    gateway_url: str
    api_key: str


def data_folder(folders: Sequence[Path] = FOLDERS) -> Path:
    """The folder of the stack that runs, else of the one used last, else the first of `folders`."""
    used = [folder for folder in folders if (folder / "config.json").is_file()]
    return max(used, key=lambda folder: (is_running(folder), _used_at(folder)), default=folders[0])


def local_stack(folder: Path) -> LocalStack | None:
    """The stack that runs in `folder`; None if none does."""
    if not is_running(folder):
        return None
    try:
        url = json.loads((folder / "state.json").read_text())["gateway_url"]
        key = json.loads((folder / "secrets.json").read_text())["api_key"]
    except (OSError, ValueError, KeyError):
        return None
    return LocalStack(url, key) if url else None


def is_running(folder: Path) -> bool:
    """Whether a process holds the folder's lock."""
    try:
        descriptor = os.open(folder / "stack.lock", os.O_RDWR)
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
    path = folder / "state.json"
    return path.stat().st_mtime if path.exists() else 0.0
