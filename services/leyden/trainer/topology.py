"""What the trainer consumes."""

from leyden.events.codec import CHECKPOINTS, TRAINING_BATCHES, TRAINING_METRICS, TRANSITIONS
from leyden.kafka.liveness import Heartbeat
from leyden.kafka.subscriber import Subscription
from leyden.trainer.handlers import TrainerHandler

PUBLISHES = frozenset({CHECKPOINTS, TRAINING_BATCHES, TRAINING_METRICS})
READS = frozenset({TRAINING_BATCHES})
"""Read at start, and after each batch that it records."""
GROUP = "trainer"
MAX_RECORDS = 100
"""Small, so that one poll holds a step or two and not the whole backlog."""


def group_name(name: str) -> str:
    """Consumer group of the trainer `name`. It has no members: the trainer only stores there how far it has read."""
    return f"{GROUP}-{name}" if name else GROUP


def subscription(handler: TrainerHandler, heartbeat: Heartbeat, name: str = "") -> Subscription:
    """Subscription to transitions. There is one trainer per policy, and it reads every partition."""
    return Subscription(
        (TRANSITIONS,),
        handler.on_batch,
        group_name(name),
        max_records=MAX_RECORDS,
        starts=lambda: handler.positions,
        heartbeat=heartbeat,
    )
