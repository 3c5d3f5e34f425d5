"""The model API: `/v1/chat/completions` and `/v1/models`, also under `/rollouts/{id}`. OpenAI's shapes throughout."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from leyden.gateway.core.agent import NAME_HEADER, ROLE_HEADER, Agent, agent_of
from leyden.gateway.core.binding import Binding, bind
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.prepare import JsonDict
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.routing import RoutingTable
from leyden.gateway.handlers.calls import VERSION_HEADER, Incoming, ModelCalls
from leyden.gateway.handlers.reply import Failed, OpenCall
from leyden.gateway.http.errors import openai_shape, telling
from leyden.gateway.http.intake import Limiter, read_body
from leyden.gateway.http.stream import EventStream, unless_gone

OVERRIDDEN_HEADER = "x-leyden-overridden"
CALL_HEADER = "x-leyden-call-id"
CLIENT_CLOSED_REQUEST = 499


@dataclass(frozen=True)
class ModelApi:
    """What the model API is made of."""

    keys: KeyRing
    calls: ModelCalls
    table: RoutingTable
    limiter: Limiter
    max_body_bytes: int
    retry_after_s: float

    def routes(self) -> list[BaseRoute]:
        """The routes, with and without a rollout in front."""
        told = telling(openai_shape, self.retry_after_s)
        return [
            route
            for prefix in ("", "/rollouts/{rollout}")
            for route in (
                Route(f"{prefix}/v1/chat/completions", told(self._chat), methods=["POST"]),
                Route(f"{prefix}/v1/models", told(self._models), methods=["GET"]),
            )
        ]

    async def _chat(self, request: Request) -> Response:
        binding = self._binding(request)
        with ExitStack() as held:
            held.enter_context(self.limiter.slot())
            body = _json_object(await read_body(request, self.max_body_bytes))
            incoming = Incoming("/v1/chat/completions", body, binding, _agent(request))
            opening = asyncio.create_task(self._answer(incoming, held))
            response = await unless_gone(opening, request.receive)
            return response or Response(status_code=CLIENT_CLOSED_REQUEST)

    async def _answer(self, incoming: Incoming, held: ExitStack) -> Response:
        try:
            call = await self.calls.open(incoming)
            if call.sent.prepared.streamed:
                return EventStream(call, _headers(call), held.pop_all())
            body = await call.whole()
        except Failed as failed:
            retry = {"retry-after": failed.retry_after} if failed.retry_after else {}
            return Response(failed.body, failed.status, retry, media_type=failed.content_type)
        return Response(body, 200, _headers(call), media_type="application/json")

    async def _models(self, request: Request) -> Response:
        self._binding(request)
        ids = [
            name
            for state in self.table.policies()
            if state.replicas
            for name in (state.policy, *(f"{state.policy}@{v}" for v in sorted({r.version for r in state.replicas})))
        ]
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "leyden"} for name in ids]
        return Response(orjson.dumps({"object": "list", "data": data}), media_type="application/json")

    def _binding(self, request: Request) -> Binding:
        caller = self.keys.caller(request.headers.get("authorization"))
        return bind(request.path_params.get("rollout"), caller, request.headers.get("traceparent"))


def _agent(request: Request) -> Agent:
    headers = request.headers
    return agent_of(headers.get(NAME_HEADER), headers.get(ROLE_HEADER), headers.getlist("baggage"))


def _headers(call: OpenCall) -> dict[str, str]:
    headers = {CALL_HEADER: call.sent.call_id, VERSION_HEADER: call.served_model}
    if call.sent.prepared.overridden:
        headers[OVERRIDDEN_HEADER] = ",".join(call.sent.prepared.overridden)
    return headers


def _json_object(body: bytes) -> JsonDict:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "invalid_json", f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Refusal(400, "invalid_json", "the body must be a JSON object")
    return parsed
