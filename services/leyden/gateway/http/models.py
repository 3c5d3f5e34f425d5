"""`/v1/models`: live models, in OpenAI's or Anthropic's shape; `/v1/messages/count_tokens`: a prompt's length."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from leyden.gateway.core.faces import CHAT, MESSAGES
from leyden.gateway.core.faces.messages import count_request
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import JsonDict, json_object
from leyden.gateway.core.routing import ModelName, RoutingTable
from leyden.gateway.core.upstreams import Upstreams
from leyden.gateway.handlers.admission import Limiter
from leyden.gateway.handlers.counting import TokenCounter
from leyden.gateway.handlers.servers import EngineError
from leyden.gateway.http.operations import Operation, json
from leyden.gateway.http.requests import App, Bodies, Endpoint, bind_request, face_shape, json_answer, request_ids

ANTHROPIC_HEADER = "anthropic-version"
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Listed(NamedTuple):
    """A model's name, since when it is live (unknown for upstreams), and its owner."""

    name: str
    since: datetime
    owner: str = "leyden"


@dataclass(frozen=True)
class Catalog:
    """The list of models."""

    keys: KeyRing
    table: RoutingTable
    upstreams: Upstreams
    retry_after_s: float

    def operations(self) -> list[Operation]:
        """The operations for all models and for one."""
        every = self._operation("/v1/models", "The models that are live.", self._all, "Models", (401, 403))
        return [every, self._operation("/v1/models/{model:path}", "One model.", self._one, "Model", (401, 403, 404))]

    def _operation(self, path: str, summary: str, endpoint: Endpoint, reply: str, errors: tuple[int, ...]) -> Operation:
        openai = App(endpoint, face_shape(CHAT), self.retry_after_s)
        anthropic = App(endpoint, face_shape(MESSAGES), self.retry_after_s)

        return Operation(
            method="GET",
            path=path,
            summary=summary,
            tag="model API",
            app=_ByClient(openai, anthropic),
            answers={200: json(reply)},
            errors=errors,
            error=json("OpenAIError"),
            bound=True,
        )

    async def _all(self, request: Request) -> Response:
        caller = bind_request(self.keys, request).caller
        shown = [_shown(request, model) for model in self._models() if caller.may_use(model.name)]
        if ANTHROPIC_HEADER not in request.headers:
            return json_answer({"object": "list", "data": shown}, headers=request_ids())
        first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
        return json_answer(
            {"data": shown, "has_more": False, "first_id": first, "last_id": last}, headers=request_ids()
        )

    async def _one(self, request: Request) -> Response:
        caller = bind_request(self.keys, request).caller
        wanted = str(request.path_params["model"])
        caller.must_use(wanted)
        for model in self._models():
            if model.name == wanted:
                return json_answer(_shown(request, model), headers=request_ids())
        raise Refusal(404, "model_not_found", f"The model `{wanted[:256]}` does not exist.", param="model")

    def _models(self) -> Iterator[Listed]:
        """Every model name that a request may use, without the patterns of upstreams."""
        for state in self.table.policies():
            since: dict[int, datetime] = {}
            for replica in state.replicas:
                since[replica.version] = min(since.get(replica.version, replica.event_time), replica.event_time)
            if since:
                yield Listed(state.policy, min(since.values()))
            for version in sorted(since):
                yield Listed(f"{state.policy}@{version}", since[version])
        for name, upstream in self.upstreams.models():
            if not self.table.knows(ModelName.parse(name).policy):
                yield Listed(name, LONG_AGO, upstream)


def _shown(request: Request, model: Listed) -> JsonDict:
    if ANTHROPIC_HEADER in request.headers:
        shown = {"type": "model", "lifecycle": "active", "id": model.name, "display_name": model.name}
        return shown | {"created_at": model.since.isoformat()}
    created = int(model.since.timestamp())
    return {"id": model.name, "object": "model", "created": created, "owned_by": model.owner}


class _ByClient:
    """Dispatches to the application for OpenAI's or Anthropic's clients."""

    def __init__(self, openai: App, anthropic: App) -> None:
        self._openai = openai
        self._anthropic = anthropic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_anthropic = ANTHROPIC_HEADER in Request(scope).headers
        await (self._anthropic if is_anthropic else self._openai)(scope, receive, send)


@dataclass(frozen=True)
class CountingApi:
    """Anthropic's token count, by the engine's tokenizer."""

    keys: KeyRing
    counter: TokenCounter
    limiter: Limiter
    bodies: Bodies
    retry_after_s: float

    def operations(self) -> list[Operation]:
        """The one route."""
        return [
            Operation(
                method="POST",
                path="/v1/messages/count_tokens",
                summary="How long a prompt is.",
                tag="model API",
                app=App(self._count, face_shape(MESSAGES), self.retry_after_s),
                body=json("CountTokensRequest"),
                answers={200: json("TokenCount")},
                errors=(400, 401, 403, 404, 408, 409, 413, 429, 502, 503, 504),
                error=json("AnthropicError"),
                bound=True,
            )
        ]

    async def _count(self, request: Request) -> Response:
        caller = bind_request(self.keys, request).caller
        ids = request_ids()
        async with self.bodies.admitted(request, self.limiter) as raw:
            asked = json_object(raw)
            prompt = count_request(asked)
            caller.must_use(asked.get("model"))
            try:
                count = await self.counter.count(asked.get("model"), prompt)
            except EngineError as failed:
                body = MESSAGES.engine_error(failed.status, failed.body, ids["request-id"])
                return Response(body, failed.status, ids, media_type="application/json")
        return json_answer({"input_tokens": count}, headers=ids)
