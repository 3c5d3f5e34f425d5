"""`/leyden/v1`: tasks, claims, rollouts and the queue, policies."""

import asyncio
import secrets
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response

from leyden.gateway.core.keys import Caller, Scope, rollout_key
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.rollouts import Running, begun_rollout_id
from leyden.gateway.core.routing import PolicyState, RoutingTable
from leyden.gateway.handlers.admission import Limiter
from leyden.gateway.handlers.rollouts import Rollouts, traceparent_of
from leyden.gateway.handlers.tasks import CANCELS_AT_ONCE, Accepted, TasksHandler
from leyden.gateway.http.bodies import (
    BeginBody,
    CancelRolloutsBody,
    CancelTasksBody,
    ClaimBody,
    EndBody,
    NoBody,
    PauseBody,
    TasksBody,
)
from leyden.gateway.http.operations import Asked, LeydenRoutes, Operation
from leyden.gateway.http.requests import json_answer
from leyden.gateway.ports import CallInFlight
from leyden.ids import MAX_ATTEMPTS, AttemptRef, derive, is_rollout_id

V1 = "/leyden/v1"
IDEMPOTENCY_KEY = "idempotency-key"
"""Header that makes repeated starts of a rollout idempotent."""
ATTEMPT = f"{V1}/rollouts/{{rollout}}/attempts/{{attempt}}"
MAX_DIGITS = 9


@dataclass(frozen=True)
class RolloutsApi:
    """The dependencies of these routes. A project's key controls that project's work only."""

    leyden: LeydenRoutes
    claims: Limiter
    tasks: TasksHandler
    rollouts: Rollouts
    table: RoutingTable
    public_url: str
    secret: bytes
    lease_s: float

    def operations(self) -> list[Operation]:
        """All operations on tasks, rollouts, policies and the queue."""
        return [*self._tasks(), *self._attempts(), *self._looks()]

    def _tasks(self) -> list[Operation]:
        operation, runner, admin = self.leyden.operation, Scope.RUNNER, Scope.ADMIN
        return [
            operation("POST", f"{V1}/tasks", self._enqueue, TasksBody, scope=runner, status=201, reply="Tasks",
                      summary="Accept tasks; the same `task_id` again has the same answer."),
            operation("POST", f"{V1}/tasks/cancel", self._cancel_tasks, CancelTasksBody, scope=runner, more=(404,),
                      reply="CancelledTasks", summary="Call tasks off."),
            operation("POST", f"{V1}/rollouts/cancel", self._cancel_rollouts, CancelRolloutsBody, scope=runner,
                      more=(404,), reply="CancelledRollouts", summary="Call rollouts off."),
            operation("POST", f"{V1}/queue/pause", partial(self._set_paused, True), PauseBody, scope=admin,
                      reply="Paused", summary="Hand out no more attempts, of one project or of all."),
            operation("POST", f"{V1}/queue/resume", partial(self._set_paused, False), PauseBody, scope=admin,
                      reply="Paused", summary="Hand out attempts again."),
        ]  # fmt: skip

    def _attempts(self) -> list[Operation]:
        operation = self.leyden.operation
        return [
            operation("POST", f"{V1}/rollouts/claim", self._claim, ClaimBody, scope=Scope.RUNNER, limiter=self.claims,
                      reply="Claim", summary="Take queued attempts."),
            operation("POST", f"{V1}/rollouts", self._begin, BeginBody, status=201, reply="Attempt",
                      summary="Begin a rollout of one's own accord."),
            operation("POST", f"{ATTEMPT}/heartbeat", self._heartbeat, NoBody, more=(409,), reply="Lease",
                      summary="Keep an attempt alive."),
            operation("POST", f"{ATTEMPT}/end", self._end, EndBody, more=(409,), reply="End",
                      summary="End an attempt; the first end counts."),
        ]  # fmt: skip

    def _looks(self) -> list[Operation]:
        operation, runner = self.leyden.operation, Scope.RUNNER
        return [
            operation("GET", f"{V1}/rollouts/{{rollout}}", self._rollout, NoBody, tag="looking", reply="Rollout",
                      summary="Where a rollout stands."),
            operation("GET", f"{V1}/policies", self._policies, NoBody, scope=runner, tag="looking", reply="Policies",
                      summary="Policies and their replicas."),
            operation("GET", f"{V1}/queue", self._queue, NoBody, scope=runner, tag="looking", reply="Queue",
                      summary="How many attempts wait, run and have ended."),
            operation("GET", f"{V1}/calls", self._calls, NoBody, scope=runner, tag="looking", reply="CallsInFlight",
                      summary="Model calls whose answer has not begun after a second, the oldest first."),
        ]  # fmt: skip

    async def _enqueue(self, asked: Asked[TasksBody]) -> Response:
        body = asked.body()
        accepted = await self.tasks.accept([t.request(secrets.token_hex(16), asked.caller.project) for t in body.tasks])
        return json_answer({"tasks": [_accepted(one) for one in accepted]}, 201)

    async def _cancel_tasks(self, asked: Asked[CancelTasksBody]) -> Response:
        body = asked.body()
        done = [await self.tasks.cancel(task_id, body.reason, asked.caller.project) for task_id in body.task_ids]
        answer = [{"task_id": d.task_id, "rollouts": d.rollouts, "cancelled": d.cancelled} for d in done]
        return json_answer({"tasks": answer})

    async def _cancel_rollouts(self, asked: Asked[CancelRolloutsBody]) -> Response:
        body = asked.body()
        for rollout_id in body.rollout_ids:
            view = await self.rollouts.find(rollout_id)
            if asked.caller.project is not None and view.spec.project != asked.caller.project:
                raise Refusal(404, "rollout_not_found", f"no rollout {rollout_id[:64]}")
        done: list[bool] = []
        for at in range(0, len(body.rollout_ids), CANCELS_AT_ONCE):
            part = body.rollout_ids[at : at + CANCELS_AT_ONCE]
            done += await asyncio.gather(*(self.rollouts.cancel(one, body.reason) for one in part))
        pairs = zip(body.rollout_ids, done, strict=True)
        answer = [{"rollout_id": rollout_id, "cancelled": is_off} for rollout_id, is_off in pairs]
        return json_answer({"rollouts": answer})

    async def _set_paused(self, paused: bool, asked: Asked[PauseBody]) -> Response:
        body = asked.body()
        project = body.project or asked.caller.project
        asked.caller.must_share(project)
        await self.tasks.pause(project, paused, body.reason)
        return json_answer({"project": project, "paused": paused})

    async def _claim(self, asked: Asked[ClaimBody]) -> Response:
        body = asked.body()
        left = asked.request.is_disconnected
        claimed = await self.rollouts.claim(body.runner, body.limit, body.wait_s, left, asked.caller.project)
        return json_answer({"rollouts": [self._shown(running, self.lease_s, asked.caller) for running in claimed]})

    async def _begin(self, asked: Asked[BeginBody]) -> Response:
        asked.caller.must_be_unbound()
        body = asked.body()
        rollout_id = body.rollout_id
        if rollout_id is None and (key := asked.request.headers.get(IDEMPOTENCY_KEY)):
            rollout_id = begun_rollout_id(asked.caller.key_id, key)
        new_id = derive("own-task", rollout_id) if rollout_id else secrets.token_hex(16)
        spec = body.spec(new_id, asked.caller.project).model_copy(update={"begun_by": asked.caller.key_id})
        running = await self.rollouts.begin(spec, body.runner, rollout_id)
        return json_answer(self._shown(running, running.spec.timeout_s, asked.caller), 201)

    async def _heartbeat(self, asked: Asked[NoBody]) -> Response:
        return json_answer({"lease_s": await self.rollouts.heartbeat(await self._own_attempt(asked))})

    async def _end(self, asked: Asked[EndBody]) -> Response:
        ref = await self._own_attempt(asked)
        body = asked.body()
        event = await self.rollouts.end(ref, body.report())
        answer = {"rollout_id": ref.rollout_id, "attempt": ref.attempt, "status": event.status, "final": event.final}
        return json_answer(answer | {"calls": len(event.call_ids)})

    async def _rollout(self, asked: Asked[NoBody]) -> Response:
        rollout_id = _rollout_id(asked)
        if asked.caller.attempt is not None and asked.caller.attempt.rollout_id != rollout_id:
            asked.caller.must(Scope.RUNNER)
        await self._must_be_theirs(asked.caller, rollout_id)
        view = await self.rollouts.find(rollout_id)
        answer = {"rollout_id": rollout_id, "attempt": view.attempt, "state": view.state}
        return json_answer(answer | ({"status": view.status} if view.status else {}))

    async def _policies(self, _: Asked[NoBody]) -> Response:
        return json_answer({"policies": [_policy(state) for state in self.table.policies()]})

    async def _queue(self, asked: Asked[NoBody]) -> Response:
        counts = await self.rollouts.counts()
        ours = [lane for lane in counts.lanes if asked.caller.project in (None, lane.partition(":")[2])]
        paused = [
            whose for whose in counts.paused if asked.caller.project is None or whose in ("*", asked.caller.project)
        ]
        return json_answer(
            {
                "queued": counts.queued,
                "running": counts.running,
                "ended": counts.ended,
                "delayed": counts.delayed,
                "lanes": {lane: counts.lanes[lane] for lane in ours},
                "paused": paused,
            }
        )

    async def _calls(self, asked: Asked[NoBody]) -> Response:
        found = await self.rollouts.calls_in_flight()
        ours = [one for one in found if asked.caller.project in (None, one.project)]
        return json_answer({"calls": [_call(one) for one in ours]})

    def _shown(self, running: Running, lease_s: float, caller: Caller) -> dict[str, Any]:
        ref, task = running.ref, running.spec.task
        return {
            "rollout_id": ref.rollout_id,
            "attempt": ref.attempt,
            "trace_id": ref.trace_id,
            "traceparent": traceparent_of(ref),
            "base_url": f"{self.public_url}/rollouts/{ref.trace_id}/v1",
            "api_key": rollout_key(self.secret, ref, caller.key_id),
            "task_id": task.task_id if task else None,
            "group_id": running.spec.group_id,
            "input": task.input if task else None,
            "mode": running.spec.mode,
            "timeout_s": running.spec.timeout_s,
            "lease_s": lease_s,
        }

    async def _own_attempt(self, asked: Asked[Any]) -> AttemptRef:
        ref = AttemptRef(_rollout_id(asked), _attempt_number(asked))
        asked.caller.must_own(ref)
        await self._must_be_theirs(asked.caller, ref.rollout_id)
        return ref

    async def _must_be_theirs(self, caller: Caller, rollout_id: str) -> None:
        """Raise a 403 unless an agent key started the rollout, or a runner key's project may claim it."""
        runs = Scope.RUNNER in caller.scopes
        if caller.attempt is not None or (runs and caller.project is None):
            return
        spec = (await self.rollouts.find(rollout_id)).spec
        if spec.begun_by != caller.key_id and not (runs and spec.project == caller.project):
            message = "this key did not begin that rollout, and it is no runner's key of that rollout's project"
            raise Refusal(403, "wrong_rollout", message)


def _rollout_id(asked: Asked[Any]) -> str:
    text = asked.parameter("rollout")
    if not is_rollout_id(text):
        raise Refusal(404, "rollout_not_found", f"{text[:64]!r} is not a rollout id")
    return text


def _accepted(one: Accepted) -> dict[str, Any]:
    event = one.event
    return {
        "task_id": event.task.task_id,
        "group_id": event.group_id,
        "rollout_ids": event.rollout_ids,
        "new": one.new,
    }


def _call(one: CallInFlight) -> dict[str, Any]:
    return {
        "call_id": one.call_id,
        "trace_id": one.ref.trace_id if one.ref else None,
        "model": one.model,
        "seconds": one.seconds,
    }


def _attempt_number(asked: Asked[Any]) -> int:
    text = asked.parameter("attempt")
    # Limited in length: `int` raises for thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS) or int(text) > MAX_ATTEMPTS:
        raise Refusal(404, "rollout_not_found", "no such attempt")
    return int(text)


def _policy(state: PolicyState) -> dict[str, Any]:
    replicas = [{"replica": r.replica, "version": r.version, "engine": r.engine} for r in state.replicas]
    return {
        "policy": state.policy,
        "promoted_version": state.promoted_version,
        "live_version": state.live_version,
        "replicas": replicas,
    }
