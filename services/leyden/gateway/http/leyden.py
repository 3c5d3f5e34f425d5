"""`/leyden/v1`: tasks, claims, rollouts, policies, the queue."""

import secrets
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from leyden.gateway.core.keys import Caller, KeyRing, rollout_key
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.rollouts import Running
from leyden.gateway.core.routing import PolicyState, RoutingTable
from leyden.gateway.handlers.rollouts import Rollouts, traceparent_of
from leyden.gateway.handlers.tasks import TasksHandler
from leyden.gateway.http.bodies import BeginBody, Body, ClaimBody, EndBody, TasksBody
from leyden.gateway.http.errors import leyden_shape, telling
from leyden.gateway.http.intake import read_body
from leyden.ids import MAX_ATTEMPTS, AttemptRef, is_rollout_id

BodyT = TypeVar("BodyT", bound=Body)
V1 = "/leyden/v1"
ATTEMPT = f"{V1}/rollouts/{{rollout}}/attempts/{{attempt:int}}"


@dataclass(frozen=True)
class LeydenApi:
    """What `/leyden/v1` is made of."""

    keys: KeyRing
    tasks: TasksHandler
    rollouts: Rollouts
    table: RoutingTable
    public_url: str
    secret: bytes
    lease_s: float
    max_body_bytes: int
    retry_after_s: float

    def routes(self) -> list[BaseRoute]:
        """All routes under `/leyden/v1`."""
        told = telling(leyden_shape, self.retry_after_s)
        return [
            Route(f"{V1}/tasks", told(self._enqueue), methods=["POST"]),
            Route(f"{V1}/rollouts/claim", told(self._claim), methods=["POST"]),
            Route(f"{V1}/rollouts", told(self._begin), methods=["POST"]),
            Route(f"{ATTEMPT}/heartbeat", told(self._heartbeat), methods=["POST"]),
            Route(f"{ATTEMPT}/end", told(self._end), methods=["POST"]),
            Route(f"{V1}/rollouts/{{rollout}}", told(self._rollout), methods=["GET"]),
            Route(f"{V1}/policies", told(self._policies), methods=["GET"]),
            Route(f"{V1}/queue", told(self._queue), methods=["GET"]),
        ]

    async def _enqueue(self, request: Request) -> Response:
        self._caller(request).must_be_api_key()
        body = await self._body(request, TasksBody)
        accepted = await self.tasks.accept([task.request(secrets.token_hex(16)) for task in body.tasks])
        answer = [{"task_id": e.task.task_id, "group_id": e.group_id, "rollout_ids": e.rollout_ids} for e in accepted]
        return _json({"tasks": answer}, 201)

    async def _claim(self, request: Request) -> Response:
        self._caller(request).must_be_api_key()
        body = await self._body(request, ClaimBody)
        claimed = await self.rollouts.claim(body.runner, body.limit, body.wait_s, request.is_disconnected)
        return _json({"rollouts": [self._shown(running, self.lease_s) for running in claimed]})

    async def _begin(self, request: Request) -> Response:
        self._caller(request).must_be_api_key()
        body = await self._body(request, BeginBody)
        running = await self.rollouts.begin(body.spec(secrets.token_hex(16)), body.runner)
        return _json(self._shown(running, running.spec.timeout_s), 201)

    async def _heartbeat(self, request: Request) -> Response:
        return _json({"lease_s": await self.rollouts.heartbeat(self._own_attempt(request))})

    async def _end(self, request: Request) -> Response:
        ref = self._own_attempt(request)
        body = await self._body(request, EndBody)
        event = await self.rollouts.end(ref, body.report())
        answer = {"rollout_id": ref.rollout_id, "attempt": ref.attempt, "status": event.status, "final": event.final}
        return _json(answer | {"calls": len(event.call_ids)})

    async def _rollout(self, request: Request) -> Response:
        rollout_id = _rollout_id(request)
        caller = self._caller(request)
        if caller.attempt is not None and caller.attempt.rollout_id != rollout_id:
            caller.must_be_api_key()
        view = await self.rollouts.find(rollout_id)
        answer = {"rollout_id": rollout_id, "attempt": view.attempt, "state": view.state}
        return _json(answer | ({"status": view.status} if view.status else {}))

    async def _policies(self, request: Request) -> Response:
        self._caller(request).must_be_api_key()
        return _json({"policies": [_policy(state) for state in self.table.policies()]})

    async def _queue(self, request: Request) -> Response:
        self._caller(request).must_be_api_key()
        counts = await self.rollouts.counts()
        return _json({"queued": counts.queued, "running": counts.running, "ended": counts.ended})

    def _shown(self, running: Running, lease_s: float) -> dict[str, Any]:
        ref, task = running.ref, running.spec.task
        return {
            "rollout_id": ref.rollout_id,
            "attempt": ref.attempt,
            "trace_id": ref.trace_id,
            "traceparent": traceparent_of(ref),
            "base_url": f"{self.public_url}/rollouts/{ref.trace_id}/v1",
            "api_key": rollout_key(self.secret, ref),
            "task_id": task.task_id if task else None,
            "group_id": running.spec.group_id,
            "input": task.input if task else None,
            "mode": running.spec.mode,
            "timeout_s": running.spec.timeout_s,
            "lease_s": lease_s,
        }

    def _caller(self, request: Request) -> Caller:
        return self.keys.caller(request.headers.get("authorization"))

    def _own_attempt(self, request: Request) -> AttemptRef:
        caller = self._caller(request)
        number = int(request.path_params["attempt"])
        if number > MAX_ATTEMPTS:
            raise Refusal(404, "rollout_not_found", "no such attempt")
        ref = AttemptRef(_rollout_id(request), number)
        caller.must_own(ref)
        return ref

    async def _body(self, request: Request, kind: type[BodyT]) -> BodyT:
        raw = await read_body(request, self.max_body_bytes)
        try:
            return kind.model_validate_json(raw or b"{}")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "body"
            raise Refusal(400, "invalid_request", f"{where}: {first['msg']}") from error


def _rollout_id(request: Request) -> str:
    text = str(request.path_params["rollout"])
    if not is_rollout_id(text):
        raise Refusal(404, "rollout_not_found", f"{text[:64]!r} is not a rollout id")
    return text


def _policy(state: PolicyState) -> dict[str, Any]:
    replicas = [{"replica": r.replica, "version": r.version, "engine": r.engine} for r in state.replicas]
    return {
        "policy": state.policy,
        "promoted_version": state.promoted_version,
        "live_version": state.live_version,
        "replicas": replicas,
    }


def _json(answer: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(answer), status, media_type="application/json")
