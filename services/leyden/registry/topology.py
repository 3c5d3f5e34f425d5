"""The registry's subscription and the topic it publishes to, as data."""

from leyden.events.codec import CHECKPOINTS, MODELS, TRAINING_METRICS
from leyden.kafka.kept import Positions
from leyden.kafka.subscriber import Subscription
from leyden.registry.handlers import RegistryHandlers

PUBLISHES = frozenset({MODELS})
GROUP = "registry"


def subscriptions(handlers: RegistryHandlers, positions: Positions | None = None) -> list[Subscription]:
    """One subscription. Both topics have one partition, so one replica is active and the others are on standby."""
    return [Subscription((CHECKPOINTS, TRAINING_METRICS), handlers.on_batch, GROUP, positions=positions)]
