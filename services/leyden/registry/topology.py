"""What the registry listens to."""

from leyden.events.codec import CHECKPOINTS, MODELS, TRAINING_METRICS
from leyden.kafka.subscriber import Subscription
from leyden.registry.handlers import RegistryHandlers

PUBLISHES = frozenset({MODELS})
GROUP = "registry"


def subscriptions(handlers: RegistryHandlers) -> list[Subscription]:
    """One subscription: both topics have one partition, so one replica works and the others stand by."""
    return [Subscription((CHECKPOINTS, TRAINING_METRICS), handlers.on_batch, GROUP)]
