"""The model API: one route per face, also under `/rollouts/{id}`. Each face's own shapes, errors included."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from leyden.engine_face import VERSION_HEADER
from leyden.gateway.core.faces import FACES, Face
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.request import NAME_HEADER, NOBODY, ROLE_HEADER, SESSION_HEADER, Agent, Binding, agent_of, bind
from leyden.gateway.handlers.calls import Incoming, ModelCalls
from leyden.gateway.handlers.reply import OpenCall
from leyden.gateway.handlers.sent import Failed
from leyden.gateway.http.arrival import note_wait
from leyden.gateway.http.errors import Endpoint, face_shape, request_ids, telling
from leyden.gateway.http.intake import Admission, credential, json_object, read_body
from leyden.gateway.http.stream import EventStream, unless_gone

OVERRIDDEN_HEADER = "x-leyden-overridden"
CALL_HEADER = "x-leyden-call-id"
UPSTREAM_HEADER = "x-leyden-upstream"
AGENT_HEADERS = frozenset({NAME_HEADER.encode(), ROLE_HEADER.encode(), b"baggage"})
ROLLOUT_PREFIX = "/rollouts/{rollout}"
CLIENT_CLOSED_REQUEST = 499


@dataclass(frozen=True)
class ModelApi:
    """What the model API is made of."""

    keys: KeyRing
    calls: ModelCalls
    admission: Admission
    max_body_bytes: int
    retry_after_s: float

    def routes(self) -> list[BaseRoute]:
        """The routes, with and without a rollout in front."""
        return [
            Route(prefix + face.route, self._endpoint(face), methods=["POST"])
            for face in FACES
            for prefix in ("", ROLLOUT_PREFIX)
        ]

    def _endpoint(self, face: Face) -> Endpoint:
        return telling(face_shape(face), self.retry_after_s)(partial(self._call, face))

    async def _call(self, face: Face, request: Request) -> Response:
        note_wait(request)
        binding = bind_request(self.keys, request)
        with ExitStack() as held:
            await self.admission.enter(request, binding.caller, held)
            asked = json_object(await read_body(request, self.max_body_bytes))
            body = face.request(asked)
            binding.caller.must_use(body.get("model"))
            incoming = Incoming(face.route, body, binding, _agent(request), face, asked)
            response = await unless_gone(self._answer(incoming, held), request.receive)
            return response or Response(status_code=CLIENT_CLOSED_REQUEST)

    async def _answer(self, incoming: Incoming, held: ExitStack) -> Response:
        try:
            call = await self.calls.open(incoming)
            if call.sent.prepared.streamed:
                return EventStream(call, _headers(call), held.pop_all())
            body = await call.whole()
        except Failed as failed:
            headers = request_ids(failed.call_id) | ({"retry-after": failed.retry_after} if failed.retry_after else {})
            error = incoming.face.engine_error(failed.status, failed.body, failed.call_id)
            return Response(error, failed.status, headers, media_type="application/json")
        return Response(body, 200, _headers(call), media_type="application/json")


def bind_request(keys: KeyRing, request: Request) -> Binding:
    """Who calls and for which attempt. Raises a `Refusal`: 401, 403 or 404."""
    headers = request.headers
    caller = keys.caller(credential(request))
    return bind(request.path_params.get("rollout"), caller, headers.get("traceparent"), headers.get(SESSION_HEADER))


def _agent(request: Request) -> Agent:
    if not any(name in AGENT_HEADERS for name, _ in request.scope["headers"]):
        return NOBODY
    headers = request.headers
    return agent_of(headers.get(NAME_HEADER), headers.get(ROLE_HEADER), headers.getlist("baggage"))


def _headers(call: OpenCall) -> dict[str, str]:
    headers = {CALL_HEADER: call.sent.call_id} | request_ids(call.sent.call_id)
    headers |= {UPSTREAM_HEADER: call.sent.upstream} if call.sent.upstream else {VERSION_HEADER: call.served_model}
    if call.sent.prepared.overridden:
        headers[OVERRIDDEN_HEADER] = ",".join(call.sent.prepared.overridden)
    return headers
