"""What credit listens to. The three topics are co-partitioned: one replica sees all of a rollout."""

from leyden.credit.handlers import CreditHandlers
from leyden.events.codec import MODEL_CALLS, REWARDS, ROLLOUTS
from leyden.kafka.subscriber import Subscription

GROUP = "credit"


def subscriptions(handlers: CreditHandlers, max_records: int = 500) -> list[Subscription]:
    """One subscription to all three, so that a batch often holds a rollout whole."""
    topics = (ROLLOUTS, MODEL_CALLS, REWARDS)
    return [Subscription(topics, handlers.on_batch, GROUP, max_records=max_records)]
