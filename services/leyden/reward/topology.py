"""Reward's subscription and the topics it publishes to, as data."""

from leyden.events.codec import MODEL_CALLS, REWARDS, ROLLOUTS, SPANS, VERDICTS
from leyden.kafka.kept import Positions
from leyden.kafka.liveness import Heartbeat
from leyden.kafka.progress import Stage
from leyden.kafka.subscriber import Subscription
from leyden.reward.handlers import RewardHandlers
from leyden.reward.settings import RewardSettings

PUBLISHES = frozenset({REWARDS, ROLLOUTS, VERDICTS})
CONSUMER_GROUP = "reward"
READS = (SPANS, MODEL_CALLS, ROLLOUTS, VERDICTS)
READERS = (Stage.of("ingest"), Stage.of(CONSUMER_GROUP))
"""Who must have read what agents sent before reward knows it. The offsets of ingest's group are read from Kafka."""

LONGEST_BATCH_MS = 3_600_000
"""Reward functions are called in the handler, and Kafka must not reassign its partitions meanwhile."""


def subscriptions(
    handlers: RewardHandlers, settings: RewardSettings, heartbeat: Heartbeat, positions: Positions | None = None
) -> list[Subscription]:
    """One consumer group for the four co-partitioned topics, so one replica gets all records of a rollout."""
    return [
        Subscription(
            READS,
            handlers.on_batch,
            group=CONSUMER_GROUP,
            max_records=settings.max_records,
            max_poll_interval_ms=LONGEST_BATCH_MS,
            heartbeat=heartbeat,
            positions=positions,
        )
    ]
