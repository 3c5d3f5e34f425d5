"""`/v1/models` and `/v1/models/{id}`: what is live, in OpenAI's shape, or Anthropic's for its clients."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from leyden.gateway.core.faces import CHAT, MESSAGES
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import JsonDict
from leyden.gateway.core.routing import ModelName, RoutingTable
from leyden.gateway.core.upstreams import Upstreams
from leyden.gateway.http.answers import json_answer
from leyden.gateway.http.errors import Endpoint, face_shape, request_ids, telling
from leyden.gateway.http.model_api import ROLLOUT_PREFIX, bind_request

ANTHROPIC_HEADER = "anthropic-version"
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Listed(NamedTuple):
    """A model's name, since when it answers (for an upstream's model nobody knows), and whose it is."""

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

    def routes(self) -> list[BaseRoute]:
        """The routes, with and without a rollout in front."""
        return [
            Route(prefix + path, self._told(endpoint), methods=["GET"])
            for prefix in ("", ROLLOUT_PREFIX)
            for path, endpoint in (("/v1/models", self._all), ("/v1/models/{model:path}", self._one))
        ]

    def _told(self, endpoint: Endpoint) -> Endpoint:
        openai = telling(face_shape(CHAT), self.retry_after_s)(endpoint)
        anthropic = telling(face_shape(MESSAGES), self.retry_after_s)(endpoint)

        async def told(request: Request) -> Response:
            return await (anthropic if ANTHROPIC_HEADER in request.headers else openai)(request)

        return told

    async def _all(self, request: Request) -> Response:
        caller = bind_request(self.keys, request).caller
        shown = [_shown(request, model) for model in self._models() if caller.may_use(model.name)]
        if ANTHROPIC_HEADER not in request.headers:
            return _json({"object": "list", "data": shown})
        first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
        return _json({"data": shown, "has_more": False, "first_id": first, "last_id": last})

    async def _one(self, request: Request) -> Response:
        caller = bind_request(self.keys, request).caller
        wanted = str(request.path_params["model"])
        caller.must_use(wanted)
        for model in self._models():
            if model.name == wanted:
                return _json(_shown(request, model))
        raise Refusal(404, "model_not_found", f"The model `{wanted[:256]}` does not exist.", param="model")

    def _models(self) -> Iterator[Listed]:
        """Every name that a request may ask for; of the upstreams, those that are no patterns."""
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


def _json(answer: JsonDict) -> Response:
    return json_answer(answer, headers=request_ids())
