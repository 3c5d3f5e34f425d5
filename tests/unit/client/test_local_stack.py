"""Commands find the stack of this machine: the one that runs, else the one used last."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyden.client.local_stack import data_folder, local_stack


def stack(folder: Path, used_at: int) -> Path:
    """The files of a stack that does not run."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "stack.lock").touch()
    (folder / "secrets.json").write_text(json.dumps({"api_key": "key", "gateway_secret": "s"}))
    (folder / "state.json").write_text(json.dumps({"phase": "up", "gateway_url": f"http://{folder.name}"}))
    os.utime(folder / "state.json", (used_at, used_at))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return stack(tmp_path / "stack", 100), stack(tmp_path / "demo", 200)


@pytest.fixture
def running(folders: tuple[Path, Path]) -> Iterator[Path]:
    """The first of them runs: its lock is held."""
    descriptor = os.open(folders[0] / "stack.lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield folders[0]
    os.close(descriptor)


def test_the_one_used_last_is_taken_if_none_runs(folders: tuple[Path, Path]) -> None:
    assert data_folder(folders) == folders[1]
    assert local_stack(folders[1]) is None


def test_the_one_that_runs_is_taken_before_the_one_used_last(folders: tuple[Path, Path], running: Path) -> None:
    assert data_folder(folders) == running
    found = local_stack(running)
    assert found is not None
    assert (found.gateway_url, found.api_key) == ("http://stack", "key")


def test_the_key_is_one_that_the_gateway_accepts(running: Path) -> None:
    (running / "config.json").write_text(json.dumps({"api_keys": ["given", "other"]}))
    found = local_stack(running)
    assert found is not None
    assert found.api_key == "given", "with keys of its own the gateway does not accept the one that was made"


def test_without_any_the_first_is_taken_and_none_runs(tmp_path: Path) -> None:
    assert data_folder((tmp_path / "a", tmp_path / "b")) == tmp_path / "a"
    assert local_stack(tmp_path / "a") is None


def test_a_stack_that_only_starts_has_no_gateway_yet(running: Path) -> None:
    (running / "state.json").write_text(json.dumps({"phase": "starting", "gateway_url": ""}))
    assert local_stack(running) is None
    (running / "secrets.json").unlink()
    assert local_stack(running) is None
