"""A package with entry points, laid down as pip would do it, and visible for one test."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

import pytest

from leyden.extensions import installed


@contextmanager
def package(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str, points: Mapping[str, Mapping[str, str]]
) -> Iterator[None]:
    """Install distribution `name` with one module of the same name (dashes as underscores) and its entry points."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = (f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in named.items()) for group, named in points.items())
    (info / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.delitem(sys.modules, module, raising=False)
    invalidate_caches()
    installed.cache_clear()
    try:
        yield
    finally:
        installed.cache_clear()
        sys.modules.pop(module, None)
