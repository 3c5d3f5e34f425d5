"""Training progress as stored in a checkpoint, and the events derived from it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import AwareDatetime, Field

from leyden.events import BatchManifest, CheckpointSaved, Record, TrainingStepCompleted
from leyden.events.codec import TRANSITIONS
from leyden.ids import derive
from leyden.trainer.core.batching import sequence_ids
from leyden.trainer.core.finished import Finished, Place
from leyden.trainer.core.revisions import ReadyGroup
from leyden.trainer.core.step_metrics import Metrics

PRODUCER = "trainer"


class Progress(Record):
    """One finished step. Stored in its checkpoint, so that a restart publishes exactly the same events again."""

    policy: str
    step: int
    """Number of batches so far."""
    version: int = Field(default_factory=lambda fields: fields["step"])
    """The policy version after the step: the number of steps that changed weights. Version 0 is the base model.

    Checkpoints made before steps could be skipped do not have it.
    """
    skipped: bool = False
    """Whether the step changed no weight, so that it made no version."""
    base_model: str
    settings_hash: str
    manifest: BatchManifest
    manifest_sha256: str
    batch_id: str = Field(default_factory=lambda fields: fields["manifest_sha256"])
    """Event id of the step's `BatchFormed`. Checkpoints made before batches were recorded do not have it."""
    metrics: Metrics
    finished_at: AwareDatetime
    positions: dict[int, int]
    """Partition → offset to resume from."""
    done: list[str]
    """Finished groups, oldest first."""
    revisions: dict[str, int] = Field(default_factory=dict)
    """Newest known revision of those groups, if not 0."""
    untrained: list[str] = Field(default_factory=list)
    """Those that were dropped, sorted; a newer revision of them may still be trained."""
    above: dict[str, Place] = Field(default_factory=dict)
    """The last known record of finished groups that have one above `positions`."""
    unusable: dict[str, str] = Field(default_factory=dict)
    """Groups found unusable since the previous step, with the reason."""
    weights_sha256: str = ""
    """SHA-256 of the trained weights' file; set when it is written."""

    @property
    def finished(self) -> Finished:
        """The finished groups, for the buffer."""
        return Finished(tuple(self.done), self.revisions, frozenset(self.untrained), self.above)


def step_event(progress: Progress) -> TrainingStepCompleted:
    """The event of the step."""
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
        unusable=progress.unusable,
        manifest=progress.manifest,
    )


@dataclass(frozen=True)
class SavedCheckpoint:
    """A complete checkpoint on disk."""

    folder: Path
    progress: Progress
    merged: Path
    """The folder with the whole model."""
    adapter: Path | None
    """The folder with the adapter, if there is one."""


def checkpoint_event(saved: SavedCheckpoint) -> CheckpointSaved:
    """The event of the step's checkpoint."""
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
    """The manifest of a batch: what the step was trained on, in order."""
    sequences = [sequence for group in batch for sequence in group.sequences]
    return BatchManifest(
        sequence_ids=sequence_ids(batch),
        group_ids=[group.group_id for group in batch],
        origins=sorted(origin for sequence in sequences for origin in sequence.origins),
        positions={f"{TRANSITIONS}/{partition}": offset for partition, offset in sorted(positions.items())},
        seed=seed,
        settings_hash=settings_hash,
    )


def sha256_of(manifest: BatchManifest) -> str:
    """Hash of the batch. Positions are left out: they depend on how far was read, not on what was trained."""
    return hashlib.sha256(manifest.model_dump_json(exclude={"positions"}).encode()).hexdigest()
