"""`make release`: in a clone of its own it cuts the changelog, sets the version, writes the baseline and tags."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from roots import ROOT

TOOL = ROOT / "tools" / "release.py"
FILES = ("pyproject.toml", "CHANGELOG.md", "schemas")
EVENT = "schemas/events/rollout-ended.v1.schema.json"
BASELINE = "schemas/baseline/rollout-ended.v1.schema.json"


def git(root: Path, *command: str) -> str:
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    return subprocess.run(["git", *who, *command], cwd=root, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the files that a release changes, as they are here."""
    root = tmp_path / "clone"
    root.mkdir()
    for name in FILES:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "Before")
    return root


def release(root: Path, version: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), version, "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_release_sets_the_version_cuts_the_changelog_writes_the_baseline_and_tags(clone: Path) -> None:
    older = json.loads((clone / BASELINE).read_text())
    older["properties"].pop("reward")
    (clone / BASELINE).write_text(json.dumps(older))
    git(clone, "commit", "--quiet", "--all", "--message", "An event has a new optional field since the last release")
    done = release(clone, "9.1.0")
    assert done.returncode == 0, done.stderr
    assert 'version = "9.1.0"\n' in (clone / "pyproject.toml").read_text()
    changelog = (clone / "CHANGELOG.md").read_text()
    between = changelog.split("## [Unreleased]")[1].split("## [9.1.0] - ")[0]
    assert between.strip() == ""
    assert (clone / BASELINE).read_text() == (clone / EVENT).read_text()
    assert git(clone, "describe", "--exact-match").strip() == "v9.1.0"
    assert git(clone, "status", "--porcelain") == ""


def test_an_unclean_tree_stops_a_release(clone: Path) -> None:
    (clone / "forgotten.txt").write_text("")
    done = release(clone, "9.1.0")
    assert done.returncode != 0
    assert "forgotten.txt" in done.stderr


@pytest.mark.parametrize(
    ("version", "reason"),
    [("0.0.1", "older than"), ("9.1", "is not a version"), ("v9.1.0", "is not a version")],
)
def test_a_version_that_cannot_be_released_is_refused(clone: Path, version: str, reason: str) -> None:
    done = release(clone, version)
    assert done.returncode != 0
    assert reason in done.stderr


def test_a_second_release_of_the_same_version_or_of_nothing_is_refused(clone: Path) -> None:
    assert release(clone, "9.1.0").returncode == 0
    assert "exists already" in release(clone, "9.1.0").stderr
    assert "nothing stands under" in release(clone, "9.2.0").stderr
    assert git(clone, "status", "--porcelain") == ""


def test_a_schema_that_cannot_read_released_events_stops_a_release_that_then_changed_nothing(clone: Path) -> None:
    released = json.loads((clone / BASELINE).read_text())
    released["properties"]["group_id"] = {"type": "integer"}
    (clone / BASELINE).write_text(json.dumps(released))
    git(clone, "commit", "--quiet", "--all", "--message", "The last release had another type")
    before = git(clone, "rev-parse", "HEAD")
    done = release(clone, "9.1.0")
    assert done.returncode != 0
    assert "rollout-ended.v1.schema.json" in done.stderr
    assert (git(clone, "rev-parse", "HEAD"), git(clone, "status", "--porcelain"), git(clone, "tag")) == (before, "", "")
