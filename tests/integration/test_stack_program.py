"""`./leyden` runs the clone's own command without activation, and hints name the command as it can be typed."""

import subprocess
from pathlib import Path

import pytest

from leyden.stack.program import as_typed
from roots import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with `./leyden`, not set up."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    script = folder / "leyden"
    script.write_bytes((ROOT / "leyden").read_bytes())
    script.chmod(0o755)
    return folder


def set_up(clone: Path) -> Path:
    """Give the clone a command that prints what it was called with; returns the environment's folder."""
    command = clone / ".venv" / "bin" / "leyden"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 7\n')
    command.chmod(0o755)
    return clone / ".venv"


def run(command: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([command, *arguments], cwd="/", capture_output=True, text=True, check=False)


def test_it_runs_the_command_of_its_own_clone_from_any_folder_and_through_a_link(clone: Path, tmp_path: Path) -> None:
    set_up(clone)
    link = tmp_path / "link"
    link.symlink_to(clone / "leyden")
    for command in (clone / "leyden", link):
        done = run(command, "replay", "--name", "a b")
        assert (done.returncode, done.stdout) == (7, "replay|--name|a b|")


def test_before_set_up_it_says_what_to_run(clone: Path) -> None:
    done = run(clone / "leyden", "status")
    assert done.returncode == 1
    assert done.stderr == f"leyden: nothing is installed in {clone} yet; run `make setup` there first.\n"


def test_a_hint_names_what_can_be_typed(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = set_up(clone)
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(clone)
    assert as_typed(clone, environment) == "./leyden"
    monkeypatch.chdir(tmp_path)
    assert as_typed(clone, environment) == str(clone / "leyden")
    assert as_typed(tmp_path / "elsewhere", environment) == str(environment / "bin" / "leyden"), "not a clone"
    monkeypatch.setenv("PATH", f"{environment / 'bin'}:/usr/bin")
    assert as_typed(clone, environment) == "leyden"


def test_another_installation_on_the_path_is_not_taken_for_this_one(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("PATH", str(set_up(other) / "bin"))
    monkeypatch.chdir(clone)
    assert as_typed(clone, set_up(clone)) == "./leyden"
