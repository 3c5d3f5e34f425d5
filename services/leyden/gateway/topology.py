"""What the gateway consumes, as data."""

from leyden.events.codec import MODELS, TASKS
from leyden.gateway.handlers.models import ModelsHandler
from leyden.gateway.handlers.tasks import TasksHandler
from leyden.kafka.subscriber import Subscription

GROUP = "gateway"


def subscriptions(models: ModelsHandler, tasks: TasksHandler) -> list[Subscription]:
    """Every replica knows all of models.v1; each task is queued by one replica."""
    return [
        Subscription(topics=(MODELS,), handler=models.on_models, group=None),
        Subscription(topics=(TASKS,), handler=tasks.on_tasks, group=GROUP),
    ]
