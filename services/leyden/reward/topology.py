"""Reward's subscription and the topics it publishes to, as data."""

from leyden.events.codec import MODEL_CALLS, REWARDS, ROLLOUTS, SPANS, VERDICTS
from leyden.kafka.subscriber import Subscription
from leyden.reward.handlers import RewardHandlers
from leyden.reward.settings import RewardSettings

PUBLISHES = frozenset({REWARDS, ROLLOUTS, VERDICTS})
CONSUMER_GROUP = "reward"


def subscriptions(handlers: RewardHandlers, settings: RewardSettings) -> list[Subscription]:
    """One consumer group for the four co-partitioned topics, so one replica gets all records of a rollout."""
    topics = (SPANS, MODEL_CALLS, ROLLOUTS, VERDICTS)
    return [Subscription(topics, handlers.on_batch, group=CONSUMER_GROUP, max_records=settings.max_records)]
