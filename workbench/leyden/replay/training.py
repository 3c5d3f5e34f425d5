"""Compares the training of a replay with the recorded one, step by step: the batches, the weights, the optimiser."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from leyden.events import CheckpointSaved, TrainingStepCompleted
from leyden.events.codec import CHECKPOINTS, TRAINING_METRICS, decode
from leyden.kafka.claims import ClaimStore
from leyden.kafka.reading import read_topics
from leyden.kafka.settings import KafkaSettings


@dataclass(frozen=True)
class TrainedStep:
    """A step and the version that it made."""

    groups: tuple[str, ...]
    """In training order."""
    weights_sha256: str
    checkpoint: Path


Training = Mapping[tuple[str, int], TrainedStep]
"""(Policy, version) → the step that made it."""


@dataclass(frozen=True)
class TrainingComparison:
    """Every recorded step against the replay's step of the same policy and version."""

    steps: int
    """Number of recorded steps."""
    same_batches: int
    """Steps before the first one, over all policies, that trained other groups, or the same in another order."""
    same_weights: int
    """Steps before the first one that ended with other weights."""
    same_state: bool | None
    """Whether the last checkpoints agree in every file of the trainer's state. None: one is gone."""

    @property
    def identical(self) -> bool:
        """Whether every step trained the same groups and ended with the same weights and state."""
        return self.same_batches == self.same_weights == self.steps and self.same_state is not False

    def lines(self) -> list[str]:
        """The comparison in words."""
        if not self.steps:
            return ["no recorded steps to compare the training with"]
        lines = [_line("batches", self.same_batches, self.steps), _line("weights", self.same_weights, self.steps)]
        if self.same_state is not None and self.same_weights == self.steps:
            lines.append(
                f"optimiser and random state of the last step: {'identical' if self.same_state else 'different'}"
            )
        return lines


async def read_training(
    settings: KafkaSettings, claims: ClaimStore, prefix: str, before: datetime | None = None
) -> Training:
    """The steps under `prefix` that were told before `before`. Of several with one version, the newest."""
    groups: dict[str, tuple[str, ...]] = {}
    trained: dict[tuple[str, int], TrainedStep] = {}
    async for record in read_topics(settings, claims, prefix + TRAINING_METRICS):
        step = decode(TRAINING_METRICS, record.value)
        assert isinstance(step, TrainingStepCompleted)
        groups[step.event_id] = tuple(step.manifest.group_ids)
    async for record in read_topics(settings, claims, prefix + CHECKPOINTS):
        saved = decode(CHECKPOINTS, record.value)
        assert isinstance(saved, CheckpointSaved)
        if before is None or datetime.fromtimestamp(record.timestamp / 1000, UTC) < before:
            trained[saved.policy, saved.version] = TrainedStep(
                groups.get(saved.manifest_id, ()), saved.weights_sha256, Path(saved.checkpoint)
            )
    return dict(sorted(trained.items()))


def compare_training(recorded: Training, replayed: Training) -> TrainingComparison:
    """Compare step by step. Reads the last checkpoints' files, if they are still there."""
    pairs = [(step, replayed.get(key)) for key, step in recorded.items()]
    return TrainingComparison(
        steps=len(pairs),
        same_batches=_leading([again is not None and again.groups == step.groups for step, again in pairs]),
        same_weights=_leading(
            [again is not None and again.weights_sha256 == step.weights_sha256 for step, again in pairs]
        ),
        same_state=_same_state(*pairs[-1]) if pairs else None,
    )


def _same_state(recorded: TrainedStep, replayed: TrainedStep | None) -> bool | None:
    if replayed is None or not (recorded.checkpoint.is_dir() and replayed.checkpoint.is_dir()):
        return None
    return _hashes(recorded.checkpoint) == _hashes(replayed.checkpoint)


def _hashes(checkpoint: Path) -> dict[str, str]:
    """File name → SHA-256 of the tensors that a resumed run needs."""
    found = {}
    for path in checkpoint.glob("*.safetensors"):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _leading(same: list[bool]) -> int:
    """How many are True before the first False."""
    return same.index(False) if False in same else len(same)


def _line(what: str, same: int, steps: int) -> str:
    if same == steps:
        return f"{what}: identical, {same} of {steps} steps"
    return f"{what}: different from step {same + 1} of {steps} on"
