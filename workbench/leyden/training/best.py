"""Keeps the weights of the best version, as the trainer deletes old checkpoints."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from leyden.events import CheckpointSaved
from leyden.training.results import Best
from leyden.training.state import TrainState

VERSION = "version.txt"
"""File in the folder that names the version; written last."""


def keep_best(state: TrainState, folder: Path) -> Best | None:
    """The best version so far. Its weights are in `folder`, as links to the checkpoint's files where that is possible.

    None before the first measured version. If its checkpoint is gone already, `weights` is None.
    """
    best = state.best
    if best is None or best.version == 0:
        return best
    if kept_version(folder) != best.version:
        saved = state.checkpoints.get(best.version)
        if saved is None or not _copy(saved, folder, best.version):
            return best
    return replace(best, weights=folder)


def kept_version(folder: Path) -> int | None:
    """The version whose weights are in `folder`."""
    named = folder / VERSION
    return int(named.read_text()) if named.exists() else None


def _copy(saved: CheckpointSaved, folder: Path, version: int) -> bool:
    source = Path(saved.merged_weights) if saved.merged_weights else None
    if source is None or not source.is_dir():
        return False
    unfinished = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished, copy_function=_link)
    (unfinished / VERSION).write_text(f"{version}\n")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return True


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return target
