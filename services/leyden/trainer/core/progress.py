"""How far training is: what a checkpoint remembers beside the weights, and the events that follow from it alone."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import AwareDatetime, Field

from leyden.events import BatchManifest, CheckpointSaved, Record, TrainingStepCompleted
from leyden.events.codec import TRANSITIONS
from leyden.ids import derive
from leyden.trainer.core.batching import Finished, ReadyGroup
from leyden.trainer.core.step_metrics import Metrics

PRODUCER = "trainer"


class Progress(Record):
    """One finished step. Stored in its checkpoint, so that a restart says again exactly what was said before."""

    policy: str
    step: int
    base_model: str
    settings_hash: str
    manifest: BatchManifest
    manifest_sha256: str
    metrics: Metrics
    finished_at: AwareDatetime
    positions: dict[int, int]
    """Partition → offset to resume from."""
    done: list[str]
    """Groups that are done with, oldest first."""
    revisions: dict[str, int] = Field(default_factory=dict)
    """The newest revision known of those, where it is not 0."""
    untrained: list[str] = Field(default_factory=list)
    """Those of them that were dropped, sorted: a newer revision may still be trained."""
    weights_sha256: str = ""
    """Of the file with the trained weights; set when it is written."""

    @property
    def version(self) -> int:
        """The version that the step made; version 0 is the base model."""
        return self.step

    @property
    def finished(self) -> Finished:
        """The groups that are done with, as the buffer takes them."""
        return Finished(tuple(self.done), self.revisions, frozenset(self.untrained))


def step_event(progress: Progress) -> TrainingStepCompleted:
    """What the step was."""
    return TrainingStepCompleted(
        event_id=derive(
            "training-step-completed", progress.policy, progress.step, progress.settings_hash, progress.manifest_sha256
        ),
        event_time=progress.finished_at,
        producer=PRODUCER,
        policy=progress.policy,
        step=progress.step,
        version=progress.version,
        metrics=progress.metrics,
        manifest=progress.manifest,
    )


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that is complete on storage."""

    folder: Path
    progress: Progress
    merged: Path
    """The folder with the whole model."""
    adapter: Path | None
    """The folder with the adapter, when there is one."""


def checkpoint_event(saved: SavedCheckpoint) -> CheckpointSaved:
    """Where the step's weights are."""
    progress = saved.progress
    step = step_event(progress)
    return CheckpointSaved(
        event_id=derive("checkpoint-saved", step.event_id, progress.weights_sha256),
        event_time=progress.finished_at,
        producer=PRODUCER,
        policy=progress.policy,
        step=progress.step,
        version=progress.version,
        parent_version=progress.version - 1,
        base_model=progress.base_model,
        checkpoint=str(saved.folder),
        merged_weights=str(saved.merged),
        adapter=str(saved.adapter) if saved.adapter else None,
        manifest_id=step.event_id,
        manifest_sha256=progress.manifest_sha256,
        weights_sha256=progress.weights_sha256,
        settings_hash=progress.settings_hash,
    )


def manifest_of(
    batch: Sequence[ReadyGroup], positions: Mapping[int, int], seed: int, settings_hash: str
) -> BatchManifest:
    """What the step was made of, in the order of training."""
    sequences = [sequence for group in batch for sequence in group.sequences]
    return BatchManifest(
        sequence_ids=[sequence.sequence_id for sequence in sequences],
        group_ids=[group.group_id for group in batch],
        origins=sorted(origin for sequence in sequences for origin in sequence.origins),
        positions={f"{TRANSITIONS}/{partition}": offset for partition, offset in sorted(positions.items())},
        seed=seed,
        settings_hash=settings_hash,
    )


def sha256_of(manifest: BatchManifest) -> str:
    """Hash of the batch itself. Positions are left out: they say how far was read, not what was trained."""
    return hashlib.sha256(manifest.model_dump_json(exclude={"positions"}).encode()).hexdigest()
