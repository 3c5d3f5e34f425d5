"""Installs npm packages for tests, from their lock."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bundled import NPM


def node_packages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, source: Path, timeout_s: float
) -> Path:
    """A copy of `source` with its packages: installed once, in pytest's own cache where there is one."""
    from leyden.stack.locks import locked

    cache = getattr(request.config, "cache", None)
    folder: Path = cache.mkdir(source.name) if cache is not None else tmp_path_factory.mktemp(source.name)
    lock, installed = (source / "package-lock.json").read_bytes(), folder / "installed.json"
    with locked(folder / "installing.lock"):
        shutil.copytree(source, folder, dirs_exist_ok=True)
        if not installed.exists() or installed.read_bytes() != lock:
            command = [*NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(command, cwd=folder, check=True, timeout=timeout_s)
            installed.write_bytes(lock)
    return folder
