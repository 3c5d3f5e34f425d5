"""Checkpoints: one folder per version, written under a temporary name and renamed, so that a folder is complete.

    step-00000007/           named by the step that made the version
      state.json             progress: step, manifest, metrics, positions, finished groups, hashes
      trained.safetensors    the trained parameters, in the training dtype
      optimiser.safetensors  AdamW's moments, by parameter; optimiser.json: its scalars
      rng.safetensors        random generators
      adapter/               LoRA adapter as PEFT writes it (mode lora)
      merged/                the whole model for engines, with config and tokenizer

Nothing is pickled. Knows no Kafka. One trainer at a time can change the folder: the one that started last (`claim`).
"""

import hashlib
import json
import os
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from leyden.settings import RunFileError
from leyden.trainer.claim import FolderClaim
from leyden.trainer.core.progress import Progress, SavedCheckpoint
from leyden.trainer.model import PolicyModel

STATE = "state.json"
TRAINED = "trained.safetensors"
OPTIMISER = "optimiser.safetensors"
OPTIMISER_SCALARS = "optimiser.json"
RNG = "rng.safetensors"
_STEP = re.compile(r"step-(\d{8})")


class SettingsChangedError(RunFileError):
    """The checkpoint belongs to other settings, another model or another policy, so training cannot resume from it."""


class CheckpointStore:
    """The checkpoints of one policy. Incomplete ones are ignored and removed.

    Making one claims the folder. After another one was made, `check` and `save` raise `FencedError`.
    """

    def __init__(self, root: Path, policy: str, keep: int) -> None:
        self._root = root.absolute() / policy
        self._keep = keep
        self._claim = FolderClaim.take(self._root)

    def check(self) -> None:
        """Raise `FencedError` if another trainer has claimed the folder."""
        self._claim.check()

    def newest(self) -> SavedCheckpoint | None:
        """The complete checkpoint of the highest step."""
        steps = self._steps()
        if not steps:
            return None
        folder = steps[max(steps)]
        return _saved(folder, Progress.model_validate_json((folder / STATE).read_bytes()))

    def save(self, model: PolicyModel, progress: Progress) -> SavedCheckpoint:
        """Write a checkpoint, sync it to disk, then delete the oldest ones beyond the number to keep.

        If the newest checkpoint is of the same version, its weights stay and only its state is replaced.
        """
        newest = self.newest()
        if newest is not None and newest.progress.version == progress.version:
            return self._with_state(newest, progress)
        folder = self._root / f"step-{progress.step:08d}"
        aside = self._claim.aside(folder.name)
        aside.mkdir()
        with self._claim.or_fenced():
            whole = _write(aside, model, progress)
            _sync_tree(aside)
        if folder.exists():
            self._claim.discard(folder)
        self._claim.replace(aside, folder)
        _sync(self._root)
        self._prune()
        return _saved(folder, whole)

    def restore(self, saved: SavedCheckpoint, model: PolicyModel, settings_hash: str) -> None:
        """Load `saved` into `model`. Raises `SettingsChangedError` if it belongs to another experiment."""
        was = (saved.progress.settings_hash, saved.progress.base_model)
        if was != (settings_hash, model.base_model):
            raise SettingsChangedError(
                f"{saved.folder} was made from {was[1]} with settings {was[0]}, now they are {model.base_model} and "
                f"{settings_hash}: choose another checkpoint folder or policy name, or go back to the old settings"
            )
        model.load_trained(load_file(saved.folder / TRAINED))
        _load_optimiser(saved.folder, model)
        random = load_file(saved.folder / RNG)
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["cuda"])

    def _steps(self) -> dict[int, Path]:
        folders = self._root.iterdir() if self._root.is_dir() else ()
        return {int(m[1]): f for f in folders if (m := _STEP.fullmatch(f.name)) and (f / STATE).is_file()}

    def _prune(self) -> None:
        steps = self._steps()
        for step in sorted(steps)[: -self._keep]:
            self._claim.discard(steps[step])

    def _with_state(self, saved: SavedCheckpoint, progress: Progress) -> SavedCheckpoint:
        """Replace the state of a checkpoint at once."""
        whole = progress.model_copy(update={"weights_sha256": saved.progress.weights_sha256})
        aside = self._claim.aside(STATE)
        with self._claim.or_fenced():
            aside.write_text(whole.model_dump_json(indent=1))
            _sync(aside)
        self._claim.replace(aside, saved.folder / STATE)
        _sync(saved.folder)
        return _saved(saved.folder, whole)


def _saved(folder: Path, progress: Progress) -> SavedCheckpoint:
    adapter = folder / "adapter"
    return SavedCheckpoint(folder, progress, folder / "merged", adapter if adapter.is_dir() else None)


def _write(folder: Path, model: PolicyModel, progress: Progress) -> Progress:
    """Write all files of a checkpoint, the state last. Returns the progress with the weights' hash."""
    trained = {name: parameter.detach().cpu().contiguous() for name, parameter in model.trained.items()}
    save_file(trained, folder / TRAINED)
    _save_optimiser(folder, model)
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    save_file(random, folder / RNG)
    model.save_serving(folder)
    whole = progress.model_copy(update={"weights_sha256": _sha256(folder / TRAINED)})
    (folder / STATE).write_text(whole.model_dump_json(indent=1))
    return whole


def _save_optimiser(folder: Path, model: PolicyModel) -> None:
    state = model.optimiser.state_dict()
    names = list(model.trained)
    tensors = {
        f"{key}|{names[index]}": value.cpu().contiguous()
        for index, entry in state["state"].items()
        for key, value in entry.items()
    }
    save_file(tensors, folder / OPTIMISER)
    scalars = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
    (folder / OPTIMISER_SCALARS).write_text(json.dumps({"parameters": names, "groups": scalars}))


def _load_optimiser(folder: Path, model: PolicyModel) -> None:
    names = list(model.trained)
    if json.loads((folder / OPTIMISER_SCALARS).read_text())["parameters"] != names:
        raise ValueError(f"{folder}: the optimiser's parameters are not the model's")
    state: dict[int, dict[str, Tensor]] = {}
    for label, tensor in load_file(folder / OPTIMISER).items():
        key, _, name = label.partition("|")
        state.setdefault(names.index(name), {})[key] = tensor
    model.optimiser.load_state_dict({"state": state, "param_groups": model.optimiser.state_dict()["param_groups"]})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    """Flush a file or a folder to disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
