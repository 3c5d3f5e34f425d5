"""A resumed run is an unbroken one, bit for bit; a checkpoint is whole or is not there."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from leyden.events import BatchManifest, SequenceCredited
from leyden.kafka.liveness import Heartbeat
from leyden.trainer.adapters import TorchTraining
from leyden.trainer.checkpoint import CheckpointStore, SettingsChangedError
from leyden.trainer.core.progress import Progress, SavedCheckpoint
from leyden.trainer.core.revisions import ReadyGroup
from leyden.trainer.core.sequences import to_sequence
from leyden.trainer.learner import Learner
from leyden.trainer.model import PolicyModel
from leyden.trainer.settings import TrainerEnvironment, TrainerSettings

Groups = Callable[..., list[SequenceCredited]]


def progress_at(step: int, base_model: str, settings_hash: str) -> Progress:
    manifest = BatchManifest(
        sequence_ids=[], group_ids=[], origins=[], positions={}, seed=0, settings_hash=settings_hash
    )
    return Progress(
        policy="policy", step=step, base_model=base_model, settings_hash=settings_hash, manifest=manifest,
        manifest_sha256="0", metrics={"reward/mean": 0.1 + step}, finished_at=datetime(2030, 1, 1, tzinfo=UTC),
        positions={0: step, 3: 7}, done=["a", "b"],
    )  # fmt: skip


@dataclass
class Run:
    """A trainer as a process would hold it."""

    settings: TrainerSettings
    model: PolicyModel
    store: CheckpointStore

    def train(self, group: Groups, first: int, last: int) -> SavedCheckpoint:
        learner = Learner(self.model, self.settings)
        for step in range(first, last + 1):
            batch = [
                ReadyGroup(
                    group_id=f"g{step}",
                    sequences=tuple(map(to_sequence, group(f"g{step}", step))),
                    left_out=0,
                    zero_variance=False,
                )
            ]
            assert not learner.step(batch, step - 1).skipped
            saved = self.store.save(self.model, progress_at(step, self.model.base_model, self.settings.settings_hash))
        return saved


def start(model: Path, checkpoints: Path, **settings: object) -> Run:
    chosen = TrainerSettings.model_validate({"row_tokens": 64, "serving_dtype": "float32", **settings})
    environment = TrainerEnvironment(model=str(model), checkpoint_dir=checkpoints, device="cpu", threads=1)
    return Run(
        chosen, PolicyModel(chosen, environment), CheckpointStore(checkpoints, "policy", chosen.keep_checkpoints)
    )


def resume(run: Run, saved: SavedCheckpoint) -> Run:
    run.store.restore(saved, run.model, run.settings.settings_hash)
    return run


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "lora", "lora": {"rank": 4, "alpha": 8.0}, "warmup_steps": 1, "decay": "cosine", "decay_steps": 9},
        {"mode": "full", "kl": 0.1, "objective": "gspo", "epochs": 2, "entropy": 0.01},
    ],
)
def test_four_steps_equal_two_and_a_resume_and_two(
    tmp_path: Path, tiny_llama: Path, group: Groups, settings: dict[str, object]
) -> None:
    unbroken = start(tiny_llama, tmp_path / "unbroken", **settings).train(group, 1, 4)
    start(tiny_llama, tmp_path / "broken", **settings).train(group, 1, 2)
    again = start(tiny_llama, tmp_path / "broken", **settings)
    torch.rand(5)
    newest = again.store.newest()
    assert newest is not None and newest.progress.step == 2
    resumed = resume(again, newest).train(group, 3, 4)
    files = sorted(p.relative_to(unbroken.folder) for p in unbroken.folder.rglob("*") if p.is_file())
    assert Path("merged/model.safetensors") in files
    for file in files:
        assert (unbroken.folder / file).read_bytes() == (resumed.folder / file).read_bytes(), file


def test_merged_weights_are_the_trained_model(tmp_path: Path, tiny_llama: Path, group: Groups) -> None:
    from transformers import AutoModelForCausalLM

    run = start(tiny_llama, tmp_path, lora={"rank": 4, "alpha": 8.0})
    saved = run.train(group, 1, 2)
    ids = torch.arange(3, 30)[None]
    served = AutoModelForCausalLM.from_pretrained(saved.merged)
    with torch.no_grad():
        difference = (served(ids).logits - run.model.causal(ids).logits).abs().max()
        moved = (served(ids).logits - AutoModelForCausalLM.from_pretrained(tiny_llama)(ids).logits).abs().max()
    assert float(difference) < 1e-5 < float(moved)
    assert set(load_file(saved.merged / "model.safetensors")) == set(load_file(tiny_llama / "model.safetensors"))


def test_the_saved_adapter_gives_the_trained_model(tmp_path: Path, tiny_llama: Path, group: Groups) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = start(tiny_llama, tmp_path)
    saved = run.train(group, 1, 1)
    assert saved.adapter is not None
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), str(saved.adapter))
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, run.model.causal(ids).logits)


def test_serving_weights_have_the_serving_dtype(tmp_path: Path, tiny_llama: Path, group: Groups) -> None:
    saved = start(tiny_llama, tmp_path, serving_dtype="bfloat16").train(group, 1, 1)
    assert {t.dtype for t in load_file(saved.merged / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((saved.merged / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_half_written_checkpoint_is_never_resumed(tmp_path: Path, tiny_llama: Path, group: Groups) -> None:
    run = start(tiny_llama, tmp_path)
    saved = run.train(group, 1, 1)
    (saved.folder.parent / "step-00000002.tmp").mkdir()
    (saved.folder.parent / "step-00000003").mkdir()
    again = start(tiny_llama, tmp_path)
    newest = again.store.newest()
    assert newest is not None and newest.progress == saved.progress
    resume(again, newest).train(group, 2, 3)
    assert not list(saved.folder.parent.glob("*.tmp"))


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path, tiny_llama: Path, group: Groups) -> None:
    saved = start(tiny_llama, tmp_path, keep_checkpoints=2).train(group, 1, 4)
    assert sorted(path.name for path in saved.folder.parent.glob("step-*")) == ["step-00000003", "step-00000004"]


def test_other_settings_do_not_go_on_from_a_checkpoint(tmp_path: Path, tiny_llama: Path, group: Groups) -> None:
    saved = start(tiny_llama, tmp_path).train(group, 1, 1)
    with pytest.raises(SettingsChangedError, match="choose another checkpoint folder"):
        resume(start(tiny_llama, tmp_path, learning_rate=1e-3), saved)


def test_a_checkpoint_holds_no_pickle(tmp_path: Path, tiny_llama: Path, group: Groups) -> None:
    saved = start(tiny_llama, tmp_path).train(group, 1, 1)
    suffixes = {path.suffix for path in saved.folder.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".md"}


def test_without_any_advantage_no_weight_moves(tmp_path: Path, tiny_llama: Path, group: Groups) -> None:
    run = start(tiny_llama, tmp_path)
    run.train(group, 1, 1)
    before = {name: parameter.detach().clone() for name, parameter in run.model.trained.items()}
    flat = tuple(to_sequence(event, advantage_scale=0.0) for event in group("g", 5))
    metrics = (
        Learner(run.model, run.settings)
        .step([ReadyGroup(group_id="g", sequences=flat, left_out=0, zero_variance=True)], 1)
        .metrics
    )
    assert (metrics["optimiser/skipped"], metrics["sequences/computed"], metrics["sequences/count"]) == (1.0, 0.0, 3.0)
    assert all(torch.equal(before[name], parameter) for name, parameter in run.model.trained.items())


def test_steps_on_rewarded_tokens_make_them_likelier(tmp_path: Path, tiny_llama: Path, group: Groups) -> None:
    run = start(tiny_llama, tmp_path, learning_rate=1e-2)
    learner = Learner(run.model, run.settings)
    (event,) = group("g", 2, 1)
    praised = [transition.model_copy(update={"advantage": 1.0}) for transition in event.transitions]
    batch = [
        ReadyGroup(
            group_id="g",
            sequences=(to_sequence(event.model_copy(update={"transitions": praised})),),
            left_out=0,
            zero_variance=False,
        )
    ]
    ratios = [learner.step(batch, 0).metrics["importance/mean"] for _ in range(8)]
    assert ratios[-1] > 1.5 * ratios[0]


def test_a_gradient_that_is_not_finite_moves_no_weight_and_is_reported(
    tmp_path: Path, tiny_llama: Path, group: Groups
) -> None:
    run = start(tiny_llama, tmp_path, importance_cap=None)
    before = {name: parameter.detach().clone() for name, parameter in run.model.trained.items()}
    broken = tuple(to_sequence(event) for event in group("g", 2))
    for sequence in broken:
        sequence.advantages_T[sequence.mask_T] = np.inf
    metrics = (
        Learner(run.model, run.settings)
        .step([ReadyGroup(group_id="g", sequences=broken, left_out=0, zero_variance=False)], 0)
        .metrics
    )
    assert metrics["optimiser/skipped"] == 1.0
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(torch.equal(before[name], parameter) for name, parameter in run.model.trained.items())


def test_every_row_and_every_checkpoint_is_a_sign_of_life(tmp_path: Path, tiny_llama: Path, group: Groups) -> None:
    heartbeat = Heartbeat()
    environment = TrainerEnvironment(model=str(tiny_llama), checkpoint_dir=tmp_path, device="cpu")
    settings = TrainerSettings.model_validate({"row_tokens": 64})
    training = TorchTraining(settings, environment, tmp_path, heartbeat.beat)
    assert training.open() is None
    sequences = tuple(to_sequence(event) for event in group("g", 2))
    metrics = training.step([ReadyGroup(group_id="g", sequences=sequences, left_out=0, zero_variance=False)], 0).metrics
    rows = heartbeat.beats
    assert rows == metrics["tokens/rows"] > 0
    training.save(progress_at(1, training.base_model, settings.settings_hash))
    assert heartbeat.beats == rows + 1
    assert training.vocabulary > max(int(sequence.token_ids_T.max()) for sequence in sequences)


def test_a_skipped_step_moves_the_state_of_the_versions_checkpoint_and_nothing_else(
    tmp_path: Path, tiny_llama: Path, group: Groups
) -> None:
    run = start(tiny_llama, tmp_path, keep_checkpoints=1)
    saved = run.train(group, 1, 1)
    before = {path: path.read_bytes() for path in saved.folder.rglob("*") if path.is_file()}
    skipped = progress_at(2, run.model.base_model, run.settings.settings_hash)
    again = run.store.save(run.model, skipped.model_copy(update={"version": 1, "skipped": True}))
    assert again.folder == saved.folder
    assert {path for path, found in before.items() if path.read_bytes() != found} == {saved.folder / "state.json"}
    assert {path for path in saved.folder.rglob("*") if path.is_file()} == set(before)
    newest = run.store.newest()
    assert newest is not None
    assert (newest.progress.step, newest.progress.version, newest.progress.skipped) == (2, 1, True)
    assert newest.progress.weights_sha256 == saved.progress.weights_sha256
    third = progress_at(3, run.model.base_model, run.settings.settings_hash).model_copy(update={"version": 2})
    assert run.store.save(run.model, third).folder.name == "step-00000003"


def test_a_checkpoint_made_before_steps_could_be_skipped_has_the_version_of_its_step() -> None:
    old = progress_at(7, "base", "hash").model_dump(mode="json", exclude={"version", "skipped", "above", "unusable"})
    assert Progress.model_validate(old).version == 7
