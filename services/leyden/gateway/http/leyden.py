"""`/leyden/v1`: tasks, claims, rollouts, policies, the queue."""

import secrets
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from leyden.gateway.core.keys import Caller, Scope, rollout_key
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.rollouts import Running, begun_rollout_id
from leyden.gateway.core.routing import PolicyState, RoutingTable
from leyden.gateway.handlers.rollouts import Rollouts, traceparent_of
from leyden.gateway.handlers.tasks import Accepted, TasksHandler
from leyden.gateway.http.answers import json_answer
from leyden.gateway.http.bodies import BeginBody, ClaimBody, EndBody, TasksBody
from leyden.gateway.http.desk import Desk
from leyden.gateway.http.intake import Limiter
from leyden.ids import MAX_ATTEMPTS, AttemptRef, derive, is_rollout_id

V1 = "/leyden/v1"
IDEMPOTENCY_KEY = "idempotency-key"
"""Header with which a begin that is sent again begins nothing new."""
ATTEMPT = f"{V1}/rollouts/{{rollout}}/attempts/{{attempt}}"
MAX_DIGITS = 9


@dataclass(frozen=True)
class LeydenApi:
    """What `/leyden/v1` is made of."""

    desk: Desk
    claims: Limiter
    tasks: TasksHandler
    rollouts: Rollouts
    table: RoutingTable
    public_url: str
    secret: bytes
    lease_s: float

    def routes(self) -> list[BaseRoute]:
        """All routes under `/leyden/v1`."""
        route = self.desk.route
        return [
            route("POST", f"{V1}/tasks", self._enqueue, Scope.RUNNER),
            route("POST", f"{V1}/rollouts/claim", self._claim, Scope.RUNNER, self.claims),
            route("POST", f"{V1}/rollouts", self._begin),
            route("POST", f"{ATTEMPT}/heartbeat", self._heartbeat),
            route("POST", f"{ATTEMPT}/end", self._end),
            route("GET", f"{V1}/rollouts/{{rollout}}", self._rollout),
            route("GET", f"{V1}/policies", self._policies, Scope.RUNNER),
            route("GET", f"{V1}/queue", self._queue, Scope.RUNNER),
        ]

    async def _enqueue(self, request: Request, caller: Caller) -> Response:
        body = await self.desk.body(request, TasksBody)
        accepted = await self.tasks.accept([t.request(secrets.token_hex(16), caller.project) for t in body.tasks])
        return json_answer({"tasks": [_accepted(one) for one in accepted]}, 201)

    async def _claim(self, request: Request, caller: Caller) -> Response:
        body = await self.desk.body(request, ClaimBody)
        left = request.is_disconnected
        claimed = await self.rollouts.claim(body.runner, body.limit, body.wait_s, left, caller.project)
        return json_answer({"rollouts": [self._shown(running, self.lease_s, caller) for running in claimed]})

    async def _begin(self, request: Request, caller: Caller) -> Response:
        caller.must_be_unbound()
        body = await self.desk.body(request, BeginBody)
        rollout_id = body.rollout_id
        if rollout_id is None and (key := request.headers.get(IDEMPOTENCY_KEY)):
            rollout_id = begun_rollout_id(caller.key_id, key)
        new_id = derive("own-task", rollout_id) if rollout_id else secrets.token_hex(16)
        spec = body.spec(new_id, caller.project).model_copy(update={"begun_by": caller.key_id})
        running = await self.rollouts.begin(spec, body.runner, rollout_id)
        return json_answer(self._shown(running, running.spec.timeout_s, caller), 201)

    async def _heartbeat(self, request: Request, caller: Caller) -> Response:
        return json_answer({"lease_s": await self.rollouts.heartbeat(await self._own_attempt(request, caller))})

    async def _end(self, request: Request, caller: Caller) -> Response:
        ref = await self._own_attempt(request, caller)
        body = await self.desk.body(request, EndBody)
        event = await self.rollouts.end(ref, body.report())
        answer = {"rollout_id": ref.rollout_id, "attempt": ref.attempt, "status": event.status, "final": event.final}
        return json_answer(answer | {"calls": len(event.call_ids)})

    async def _rollout(self, request: Request, caller: Caller) -> Response:
        rollout_id = _rollout_id(request)
        if caller.attempt is not None and caller.attempt.rollout_id != rollout_id:
            caller.must(Scope.RUNNER)
        await self._must_be_theirs(caller, rollout_id)
        view = await self.rollouts.find(rollout_id)
        answer = {"rollout_id": rollout_id, "attempt": view.attempt, "state": view.state}
        return json_answer(answer | ({"status": view.status} if view.status else {}))

    async def _policies(self, _: Request, __: Caller) -> Response:
        return json_answer({"policies": [_policy(state) for state in self.table.policies()]})

    async def _queue(self, _: Request, caller: Caller) -> Response:
        counts = await self.rollouts.counts()
        ours = [lane for lane in counts.lanes if caller.project in (None, lane.partition(":")[2])]
        paused = [whose for whose in counts.paused if caller.project is None or whose in ("*", caller.project)]
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

    async def _own_attempt(self, request: Request, caller: Caller) -> AttemptRef:
        ref = AttemptRef(_rollout_id(request), _attempt_number(request))
        caller.must_own(ref)
        await self._must_be_theirs(caller, ref.rollout_id)
        return ref

    async def _must_be_theirs(self, caller: Caller, rollout_id: str) -> None:
        """Raise a 403: an agent's key looks after what it began itself, a runner's after what its project may claim."""
        runs = Scope.RUNNER in caller.scopes
        if caller.attempt is not None or Scope.ADMIN in caller.scopes or (runs and caller.project is None):
            return
        spec = (await self.rollouts.find(rollout_id)).spec
        if spec.begun_by != caller.key_id and not (runs and spec.project == caller.project):
            message = "this key did not begin that rollout, and it is no runner's key of that rollout's project"
            raise Refusal(403, "wrong_rollout", message)


def _rollout_id(request: Request) -> str:
    text = str(request.path_params["rollout"])
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


def _attempt_number(request: Request) -> int:
    text = str(request.path_params["attempt"])
    # A bounded one: what `int` makes of thousands of digits is an error.
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
