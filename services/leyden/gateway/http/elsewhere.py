"""Where clients look for the model API when their base URL is not the one they expect, and a 404 in their own shape.

OpenAI's clients take a base URL with `/v1`, Anthropic's one without: either works for both, below a rollout too.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from leyden.gateway.core.faces import CHAT, MESSAGES
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.http.catalog import ANTHROPIC_HEADER
from leyden.gateway.http.errors import Endpoint, counted, face_shape
from leyden.gateway.http.model_api import ROLLOUT_PREFIX

VERSION = "/v1"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Elsewhere:
    """The model API's routes once more, without `/v1` or with one too many. These routes come last."""

    model_routes: Iterable[BaseRoute]

    def routes(self) -> list[BaseRoute]:
        """The routes that begin with `/v1` or a rollout and are no others', and the bare ones."""
        known = dict(self._known())
        bare: list[BaseRoute] = [Route(path, endpoint, methods=[method]) for (method, path), endpoint in known.items()]

        async def found(request: Request) -> Response:
            path = "/" + str(request.path_params["rest"]).removeprefix("v1/").removeprefix("v1/")
            if endpoint := known.get((request.method, path)):
                return await endpoint(request)
            return _unknown(request, any(other == path for _, other in known))

        anywhere = [f"{prefix}/{{rest:path}}" for prefix in (VERSION, ROLLOUT_PREFIX)]
        return bare + [Route(path, found, methods=list(METHODS)) for path in anywhere]

    def _known(self) -> Iterable[tuple[tuple[str, str], Endpoint]]:
        for route in self.model_routes:
            if isinstance(route, Route) and route.path.startswith(VERSION) and "{" not in route.path:
                for method in (route.methods or set()) - {"HEAD"}:
                    yield (method, route.path.removeprefix(VERSION)), route.endpoint


def _unknown(request: Request, other_method: bool) -> Response:
    shape = face_shape(MESSAGES if ANTHROPIC_HEADER in request.headers else CHAT)
    path = request.url.path[:256]
    if other_method:
        return shape(counted(Refusal(405, "method_not_allowed", f"{request.method} is not for {path}")))
    return shape(counted(Refusal(404, "unknown_route", f"there is no {path} here")))
