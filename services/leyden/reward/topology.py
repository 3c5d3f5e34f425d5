"""What reward consumes, as data."""

from leyden.events.codec import MODEL_CALLS, ROLLOUTS, SPANS
from leyden.kafka.subscriber import Subscription
from leyden.reward.handlers import RewardHandlers
from leyden.reward.settings import RewardSettings


def subscriptions(handlers: RewardHandlers, settings: RewardSettings) -> list[Subscription]:
    """One group over the three co-partitioned topics: one replica holds all of a rollout."""
    topics = (SPANS, MODEL_CALLS, ROLLOUTS)
    return [Subscription(topics, handlers.on_batch, group="reward", max_records=settings.max_records)]
