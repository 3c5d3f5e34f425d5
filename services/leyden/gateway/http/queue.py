"""`/leyden/v1`: work called off, and the queue paused."""

import asyncio
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from leyden.gateway.core.keys import Caller, Scope
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.handlers.rollouts import Rollouts
from leyden.gateway.handlers.tasks import CANCELS_AT_ONCE, TasksHandler
from leyden.gateway.http.answers import json_answer
from leyden.gateway.http.bodies import CancelRolloutsBody, CancelTasksBody, PauseBody
from leyden.gateway.http.desk import Desk
from leyden.gateway.http.leyden import V1


@dataclass(frozen=True)
class QueueApi:
    """What steers the queue. A key of a project steers that project's work only."""

    desk: Desk
    tasks: TasksHandler
    rollouts: Rollouts

    def routes(self) -> list[BaseRoute]:
        """Its routes."""
        route = self.desk.route
        return [
            route("POST", f"{V1}/tasks/cancel", self._cancel_tasks, Scope.RUNNER),
            route("POST", f"{V1}/rollouts/cancel", self._cancel_rollouts, Scope.RUNNER),
            route("POST", f"{V1}/queue/pause", partial(self._set, True), Scope.ADMIN),
            route("POST", f"{V1}/queue/resume", partial(self._set, False), Scope.ADMIN),
        ]

    async def _cancel_tasks(self, request: Request, caller: Caller) -> Response:
        body = await self.desk.body(request, CancelTasksBody)
        done = [await self.tasks.cancel(task_id, body.reason, caller.project) for task_id in body.task_ids]
        answer = [{"task_id": d.task_id, "rollouts": d.rollouts, "cancelled": d.cancelled} for d in done]
        return json_answer({"tasks": answer})

    async def _cancel_rollouts(self, request: Request, caller: Caller) -> Response:
        body = await self.desk.body(request, CancelRolloutsBody)
        for rollout_id in body.rollout_ids:
            view = await self.rollouts.find(rollout_id)
            if caller.project is not None and view.spec.project != caller.project:
                raise Refusal(404, "rollout_not_found", f"no rollout {rollout_id[:64]}")
        done: list[bool] = []
        for at in range(0, len(body.rollout_ids), CANCELS_AT_ONCE):
            part = body.rollout_ids[at : at + CANCELS_AT_ONCE]
            done += await asyncio.gather(*(self.rollouts.cancel(one, body.reason) for one in part))
        pairs = zip(body.rollout_ids, done, strict=True)
        answer = [{"rollout_id": rollout_id, "cancelled": is_off} for rollout_id, is_off in pairs]
        return json_answer({"rollouts": answer})

    async def _set(self, paused: bool, request: Request, caller: Caller) -> Response:
        body = await self.desk.body(request, PauseBody)
        project = body.project or caller.project
        if caller.project is not None and project != caller.project:
            raise Refusal(403, "wrong_project", f"this key is of project {caller.project!r}")
        await self.tasks.pause(project, paused, body.reason)
        return json_answer({"project": project, "paused": paused})
