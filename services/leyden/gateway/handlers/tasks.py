"""Accepts tasks into tasks.v1 and queues their rollouts; cancels tasks; pauses the queue."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leyden.clock import Clock
from leyden.events import Event, QueuePaused, QueueResumed, TaskEnqueued
from leyden.events.codec import TASKS, encode
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.rollouts import (
    RolloutSpec,
    TaskRequest,
    in_project,
    queue_event,
    specs_of,
    task_enqueued,
)
from leyden.gateway.handlers.rollouts import Rollouts
from leyden.gateway.ports import RolloutStore
from leyden.ids import rollout_id_of
from leyden.kafka import Delivered, Outgoing, Publisher

CANCELS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Accepted:
    """A task in the log."""

    event: TaskEnqueued
    new: bool
    """False if it was accepted before."""


@dataclass(frozen=True, slots=True)
class CancelledTask:
    """The result of cancelling a task."""

    task_id: str
    rollouts: int
    cancelled: int
    """The other rollouts had already ended."""


class TasksHandler:
    """Accepts tasks, queues and cancels their rollouts, pauses the queue. All methods are idempotent."""

    def __init__(
        self, store: RolloutStore, publisher: Publisher, clock: Clock, rollouts: Rollouts, owner: Callable[[str], str]
    ) -> None:
        self._owner = owner
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._rollouts = rollouts

    async def accept(self, requests: Sequence[TaskRequest]) -> list[Accepted]:
        """Accept tasks; returns when Kafka has every one. A known task id gives the same answer as before.

        The event is stored before it is published, so that a retry publishes the same bytes; a duplicate in the topic
        queues nothing. Raises a 409 for a task id of another project, `Retry` while the store's state is incomplete.
        """
        await self._rollouts.must_be_whole()
        now = self._clock.now()
        sent = [
            (in_project(r.project, r.task_id), encode(task_enqueued(r, now, self._owner_of(r.project))))
            for r in requests
        ]
        kept = await self._store.accept_tasks(sent)
        events = [TaskEnqueued.model_validate_json(event) for event in kept]
        for request, event in zip(requests, events, strict=True):
            if event.project != request.project:
                raise Refusal(409, "task_exists", f"another project has a task {request.task_id[:64]!r}")
        await self._publisher.publish_all([Outgoing(TASKS, event.task.task_id, event) for event in events])
        pairs = zip(sent, kept, strict=True)
        return [Accepted(e, ours[1] == held) for e, (ours, held) in zip(events, pairs, strict=True)]

    async def cancel(self, task_id: str, reason: str, project: str | None) -> CancelledTask:
        """Cancel all rollouts of a task that have not ended; 404 for a task that is unknown in the project."""
        await self._rollouts.must_be_whole()
        specs = await self._rollouts_of(task_id, project)
        if not specs or (project is not None and specs[0][1].project != project):
            raise Refusal(404, "task_not_found", f"no task {task_id[:64]!r}")
        done: list[bool] = []
        for at in range(0, len(specs), CANCELS_AT_ONCE):
            part = specs[at : at + CANCELS_AT_ONCE]
            done += await asyncio.gather(*(self._rollouts.cancel(rollout, reason, spec) for rollout, spec in part))
        return CancelledTask(task_id, len(done), sum(done))

    async def _rollouts_of(self, task_id: str, project: str | None) -> list[tuple[str, RolloutSpec]]:
        """From the accepted event; if that has expired, from the rollouts that are still stored."""
        if (event := await self._store.task(in_project(project, task_id))) is not None:
            return specs_of(TaskEnqueued.model_validate_json(event))
        found: list[tuple[str, RolloutSpec]] = []
        owner = self._owner_of(project)
        while view := await self._store.find(rollout_id := rollout_id_of(task_id, len(found), owner)):
            found.append((rollout_id, view.spec))
        return found

    def _owner_of(self, project: str | None) -> str:
        return "" if project is None else self._owner(project)

    async def pause(self, project: str | None, paused: bool, reason: str) -> None:
        """Pause or resume a project, or all; written to the log first, in case Redis loses its data."""
        event = queue_event(project, paused, reason, self._clock.now())
        await self._publisher.publish_all([Outgoing(TASKS, f"queue/{project or ''}", event)])
        await self._store.pause(project, paused, event.event_time)

    async def on_tasks(self, batch: Sequence[Delivered[Event]]) -> None:
        """Queue the rollouts of tasks in the log; apply its pauses."""
        events = [delivered.event for delivered in batch]
        await self._store.enqueue(
            [pair for event in events if isinstance(event, TaskEnqueued) for pair in specs_of(event)]
        )
        for event in events:
            if isinstance(event, QueuePaused | QueueResumed):
                await self._store.pause(event.project, isinstance(event, QueuePaused), event.event_time)
