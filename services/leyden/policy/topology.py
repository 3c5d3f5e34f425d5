"""The policy agent's subscription and the topic it publishes to, as data."""

from leyden.events.codec import MODELS
from leyden.kafka.subscriber import Subscription
from leyden.policy.handlers import PolicyAgent

PUBLISHES = frozenset({MODELS})


def subscriptions(agent: PolicyAgent) -> list[Subscription]:
    """No consumer group: every replica reads the compacted topic from its beginning at each start."""
    return [Subscription(topics=(MODELS,), handler=agent.on_models, group=None)]
