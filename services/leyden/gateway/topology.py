"""The gateway's subscriptions, as data."""

from leyden.events.codec import KEYS, MODEL_CALLS, MODELS, OTLP, ROLLOUTS, TASKS
from leyden.gateway.handlers.keys import KeysHandler
from leyden.gateway.handlers.models import ModelsHandler
from leyden.gateway.handlers.tasks import TasksHandler
from leyden.kafka.subscriber import Subscription

PUBLISHES = frozenset({KEYS, MODEL_CALLS, OTLP, ROLLOUTS, TASKS})
READS = frozenset({ROLLOUTS, TASKS})
"""Read only to restore a Redis that lost its state."""
GROUP = "gateway"


def subscriptions(models: ModelsHandler, tasks: TasksHandler, keys: KeysHandler) -> list[Subscription]:
    """Every replica reads all of models.v1 and keys.v1; each task is queued by one replica."""
    return [
        Subscription(topics=(MODELS,), handler=models.on_models, group=None),
        Subscription(topics=(KEYS,), handler=keys.on_keys, group=None, caught_up=keys.read),
        Subscription(topics=(TASKS,), handler=tasks.on_tasks, group=GROUP),
    ]
