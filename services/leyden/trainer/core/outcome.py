"""What comes of a step on a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from leyden.trainer.core.batching import Dropped
from leyden.trainer.core.step_metrics import Metrics


@dataclass(frozen=True)
class StepOutcome:
    """The step's metrics, and what it did not train."""

    metrics: Metrics
    skipped: bool = False
    """Whether no weight was changed."""
    untrained: Mapping[str, Dropped] = field(default_factory=dict)
    """Groups of the batch with sequences that were not trained, and why."""
