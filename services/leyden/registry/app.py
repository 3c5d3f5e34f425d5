"""Composition root of the registry."""

from leyden.registry.adapters import RedisPromotions
from leyden.registry.handlers import RegistryHandlers
from leyden.registry.settings import RegistrySettings
from leyden.registry.topology import PUBLISHES, subscriptions
from leyden.service import Runtime, Service
from leyden.state import RedisPositions


def build(runtime: Runtime) -> Service:
    """The registry on Redis and Kafka."""
    promotions = RedisPromotions(runtime.redis, runtime.namespace("promoted"))
    settings = RegistrySettings()
    automatic = settings.promote == "automatic"
    handlers = RegistryHandlers(promotions, runtime.publisher, automatic, settings.experiment)
    positions = RedisPositions(runtime.redis, runtime.namespace("read"))
    return Service(subscriptions=subscriptions(handlers, positions), publishes=PUBLISHES)
