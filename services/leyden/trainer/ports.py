"""What the trainer's handler needs from outside. Nothing here loads torch."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from leyden.kafka import Publisher
from leyden.trainer.core.batching import ReadyGroup
from leyden.trainer.core.progress import Progress, SavedCheckpoint
from leyden.trainer.core.step_metrics import Metrics

__all__ = ["Offsets", "Publisher", "Training"]


class Training(Protocol):
    """The model and its checkpoints. Every method blocks for seconds; one runs at a time."""

    @property
    def base_model(self) -> str:
        """What version 0 is."""
        ...

    def open(self) -> SavedCheckpoint | None:
        """Load the model and, into it, the newest checkpoint. Raises when that is another experiment's."""
        ...

    def step(self, batch: Sequence[ReadyGroup], version: int) -> Metrics:
        """One optimiser step on `batch` from the policy at `version`."""
        ...

    def save(self, progress: Progress) -> SavedCheckpoint:
        """A checkpoint of the model as it is now, durable when this returns."""
        ...


class Offsets(Protocol):
    """Where the consumer group goes on."""

    async def resume_from(self, positions: Mapping[int, int]) -> None:
        """Make the group read each partition from its position; from the beginning where it has none."""
        ...
