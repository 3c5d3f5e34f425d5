"""What is asked for where no route is: the model API at another base URL, else a 404 or 405 in the API's own shape.

OpenAI's clients take a base URL with `/v1`, Anthropic's one without: either works for both, below a rollout too.
Who has no key learns nothing here but that one is needed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Send
from starlette.types import Scope as StarletteScope

from leyden.events.otlp import Signal
from leyden.gateway.core.faces import CHAT, MESSAGES
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.http.catalog import ANTHROPIC_HEADER
from leyden.gateway.http.errors import EXTRA_HEADERS, Endpoint, Shape, face_shape, leyden_shape, telling
from leyden.gateway.http.intake import credential
from leyden.gateway.http.model_api import ROLLOUT_PREFIX
from leyden.gateway.http.otlp import otlp_shape

VERSION = "/v1"
MODEL_PREFIXES = ("/v1/", "/rollouts/")
MOST_SHOWN = 256


@dataclass(frozen=True)
class Elsewhere:
    """The last routes: the model API's once more, without `/v1` or with one too many, and all that is left."""

    keys: KeyRing
    model_routes: Sequence[BaseRoute]
    other_routes: Sequence[BaseRoute]
    retry_after_s: float
    _known: dict[tuple[str, str], Endpoint] = field(init=False, default_factory=dict)
    """(method, path without `/v1`) → the model API's endpoint."""

    def __post_init__(self) -> None:
        self._known.update(_bare(self.model_routes))

    def routes(self) -> list[BaseRoute]:
        """The bare routes of the model API, and one for every other path and method."""
        bare: list[BaseRoute] = [Route(path, end, methods=[method]) for (method, path), end in self._known.items()]
        anywhere = [f"{prefix}/{{rest:path}}" for prefix in (VERSION, ROLLOUT_PREFIX, "")]
        # An endpoint that is no function is an ASGI application, and gets every method.
        return bare + [Route(path, _Application(self._found), include_in_schema=False) for path in anywhere]

    async def _found(self, request: Request) -> Response:
        path = "/" + str(request.path_params["rest"]).removeprefix("v1/").removeprefix("v1/")
        if endpoint := self._known.get((request.method, path)):
            return await endpoint(request)
        told = telling(_shape(request, path in {known for _, known in self._known}), self.retry_after_s)
        return await told(partial(self._refused, path))(request)

    async def _refused(self, path: str, request: Request) -> Response:
        """Raises the refusal of a request that no route takes."""
        self.keys.caller(credential(request))
        shown = request.scope["path"][:MOST_SHOWN]
        if methods := {method for method, known in self._known if known == path} | self._methods(request):
            request.scope[EXTRA_HEADERS] = {"allow": ", ".join(sorted(methods))}
            raise Refusal(405, "method_not_allowed", f"{request.method} is not for {shown}")
        raise Refusal(404, "unknown_route", f"there is no {shown} here")

    def _methods(self, request: Request) -> set[str]:
        """What the request's path is asked with elsewhere."""
        partly = (r for r in (*self.model_routes, *self.other_routes) if r.matches(request.scope)[0] is Match.PARTIAL)
        return {method for route in partly if isinstance(route, Route) for method in route.methods or ()}


class _Application:
    """An endpoint as an ASGI application."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: StarletteScope, receive: Receive, send: Send) -> None:
        response = await self._endpoint(Request(scope, receive))
        await response(scope, receive, send)


def _bare(model_routes: Iterable[BaseRoute]) -> Iterable[tuple[tuple[str, str], Endpoint]]:
    for route in model_routes:
        if isinstance(route, Route) and route.path.startswith(VERSION) and "{" not in route.path:
            for method in (route.methods or set()) - {"HEAD"}:
                yield (method, route.path.removeprefix(VERSION)), route.endpoint


def _shape(request: Request, of_model_api: bool) -> Shape:
    """The shape in which the API answers that a path belongs to, or would."""
    path = request.scope["path"]
    if not of_model_api and not f"{path}/".startswith(MODEL_PREFIXES):
        return leyden_shape
    if path.rpartition("/")[2] in tuple(Signal):
        return otlp_shape(request)
    return face_shape(MESSAGES if ANTHROPIC_HEADER in request.headers else CHAT)
