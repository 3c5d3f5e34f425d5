"""What the trainer listens to."""

from leyden.events.codec import CHECKPOINTS, TRAINING_METRICS, TRANSITIONS
from leyden.kafka.subscriber import Subscription
from leyden.trainer.handlers import TrainerHandler

PUBLISHES = frozenset({CHECKPOINTS, TRAINING_METRICS})
GROUP = "trainer"
MAX_RECORDS = 100
"""Few enough that one hand-over holds a step or two, not the whole backlog."""
LONGEST_HANDOVER_MS = 3_600_000
"""Steps are made inside the handler: Kafka must not take the partitions away meanwhile."""


def group_name(name: str) -> str:
    """The consumer group of the trainer of that name. Each trainer reads every partition, so each has its own."""
    return f"{GROUP}-{name}" if name else GROUP


def subscription(handler: TrainerHandler, name: str = "") -> Subscription:
    """Transitions to the handler; one trainer per policy reads every partition."""
    return Subscription(
        (TRANSITIONS,),
        handler.on_batch,
        group_name(name),
        max_records=MAX_RECORDS,
        max_poll_interval_ms=LONGEST_HANDOVER_MS,
    )
