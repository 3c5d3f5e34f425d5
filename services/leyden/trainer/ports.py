"""Ports of the trainer. Nothing here imports torch."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from leyden.events import BatchFormed
from leyden.kafka import Publisher
from leyden.trainer.core.outcome import StepOutcome
from leyden.trainer.core.progress import Progress, SavedCheckpoint
from leyden.trainer.core.revisions import ReadyGroup

__all__ = ["BatchLog", "Publisher", "Training", "Transitions"]


class Training(Protocol):
    """The model and its checkpoints. Each method blocks for seconds; never called concurrently."""

    @property
    def base_model(self) -> str:
        """Folder or hub id of the base model (version 0)."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many token ids the open model has an embedding for."""
        ...

    def open(self) -> SavedCheckpoint | None:
        """Load the model, claim the checkpoints, load the newest one. Raises if it belongs to another experiment.

        From then on `check` and `save` of every trainer that opened them before raise `FencedError`.
        """
        ...

    def check(self) -> None:
        """Raise `FencedError` if another trainer has opened the checkpoints since. Asks the file system."""
        ...

    def step(self, batch: Sequence[ReadyGroup], version: int) -> StepOutcome:
        """Make one optimiser step on `batch` from the policy at `version`."""
        ...

    def save(self, progress: Progress) -> SavedCheckpoint:
        """Write a checkpoint of the model; durable when this returns. Raises `FencedError`, and nothing is changed.

        After a skipped step only the progress is written, into the checkpoint of the version.
        """
        ...


class BatchLog(Protocol):
    """The recorded batches."""

    async def read(self) -> Sequence[BatchFormed]:
        """The records since the last call, in the order of the log, up to its current end. Raises `Retry`."""
        ...


class Transitions(Protocol):
    """What the log of transitions holds."""

    async def ends(self) -> Mapping[int, int]:
        """Partition → the offset behind its last record that is not a dead letter, if it has one. Raises `Retry`."""
        ...
