"""Tasks in: accepted into tasks.v1, and from there into the queue."""

from collections.abc import Sequence

from leyden.clock import Clock
from leyden.events import Event, TaskEnqueued
from leyden.events.codec import TASKS, encode
from leyden.gateway.core.rollouts import TaskRequest, specs_of, task_enqueued
from leyden.gateway.ports import RolloutStore
from leyden.kafka import Delivered, Outgoing, Publisher


class TasksHandler:
    """Accepts tasks and queues their rollouts; both may be repeated."""

    def __init__(self, store: RolloutStore, publisher: Publisher, clock: Clock) -> None:
        self._store = store
        self._publisher = publisher
        self._clock = clock

    async def accept(self, requests: Sequence[TaskRequest]) -> list[TaskEnqueued]:
        """Returns when Kafka has every task. A task id that was accepted before gives what it gave then.

        The event is kept before it is published, so that a caller who tries again after a failure publishes the same
        bytes; a duplicate in the topic queues nothing.
        """
        now = self._clock.now()
        kept = await self._store.accept_tasks([(r.task_id, encode(task_enqueued(r, now))) for r in requests])
        accepted = [TaskEnqueued.model_validate_json(event) for event in kept]
        await self._publisher.publish_all([Outgoing(TASKS, event.task.task_id, event) for event in accepted])
        return accepted

    async def on_tasks(self, batch: Sequence[Delivered[Event]]) -> None:
        """Queue the rollouts of tasks that the log holds."""
        events = [delivered.event for delivered in batch if isinstance(delivered.event, TaskEnqueued)]
        await self._store.enqueue([pair for event in events for pair in specs_of(event)])
