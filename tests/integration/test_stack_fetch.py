"""The program that fetches the demo's model: it is this environment's own, or the error says what to install."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leyden.stack.errors import FetchError
from leyden.stack.models import ensure_model
from roots import python_path


def test_the_models_package_is_fetched_by_a_program_of_this_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    with pytest.raises(FetchError, match=r"could not be fetched \(.*network was disabled"):
        ensure_model(cache=tmp_path)


def test_an_environment_that_cannot_fetch_says_what_to_install(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    command = [str(tmp_path / "env/bin/python"), "-m", "leyden.stack.models"]
    env = {"PATH": os.environ["PATH"], "LEYDEN_CACHE": str(tmp_path / "cache"), "PYTHONPATH": python_path()}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{tmp_path / 'env'} has neither uv nor pip. Install 'leyden[local]' there" in done.stderr
