"""Requests that no other route matches: the model API under another base URL, else 404 or 405 in the API's shape.

OpenAI's clients need a base URL with `/v1`, Anthropic's one without. Both forms work for both, also under a rollout.
Requests without a valid key always get 401.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as StarletteScope

from leyden.events.otlp import Signal
from leyden.gateway.core.faces import CHAT, MESSAGES
from leyden.gateway.core.keys import KeyRing
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.http.models import ANTHROPIC_HEADER
from leyden.gateway.http.operations import Operation, routes
from leyden.gateway.http.otlp import otlp_shape
from leyden.gateway.http.requests import (
    ROLLOUT_PREFIX,
    App,
    Shape,
    credentials,
    face_shape,
    leyden_shape,
)

VERSION = "/v1"
MODEL_PREFIXES = ("/v1/", "/rollouts/")
MOST_SHOWN = 256


def with_fallback(operations: Sequence[Operation], keys: KeyRing, retry_after_s: float) -> list[BaseRoute]:
    """All routes, in the order in which Starlette tries them: operations, the busiest first; then the fallback."""
    served = routes(operations)
    fallback = Fallback(keys, served, dict(_bare(operations)), retry_after_s)
    return [*served, *fallback.routes()]


def _bare(operations: Sequence[Operation]) -> list[tuple[tuple[str, str], ASGIApp]]:
    """(method, path without `/v1`) → application, for the model API."""
    return [
        ((one.method, one.path.removeprefix(VERSION)), one.app)
        for one in operations
        if one.app is not None and one.tag == "model API" and "{" not in one.path
    ]


@dataclass(frozen=True)
class Fallback:
    """Handles every other request."""

    keys: KeyRing
    served: Sequence[BaseRoute]
    bare: dict[tuple[str, str], ASGIApp]
    retry_after_s: float

    def routes(self) -> list[BaseRoute]:
        """The model API's routes without `/v1`, and one for every other path and method."""
        bare: list[BaseRoute] = [Route(path, app, methods=[method]) for (method, path), app in self.bare.items()]
        anywhere = [f"{prefix}/{{rest:path}}" for prefix in (VERSION, ROLLOUT_PREFIX, "")]
        # A route without methods matches every method.
        return bare + [Route(path, _Rest(self), include_in_schema=False) for path in anywhere]

    async def answer(self, scope: StarletteScope, receive: Receive, send: Send) -> None:
        """Serve the model API if the path means it, else refuse the request."""
        path = "/" + str(scope["path_params"]["rest"]).removeprefix("v1/").removeprefix("v1/")
        app = self.bare.get((scope["method"], path))
        if app is None:
            shape = _shape(Request(scope), path in {known for _, known in self.bare})
            app = App(partial(self._refused, path), shape, self.retry_after_s)
        await app(scope, receive, send)

    async def _refused(self, path: str, request: Request) -> Response:
        """Raise the refusal of a request without a route."""
        self.keys.caller(*credentials(request))
        shown = request.scope["path"][:MOST_SHOWN]
        if methods := {method for method, known in self.bare if known == path} | self._methods(request):
            allow = {"allow": ", ".join(sorted(methods))}
            raise Refusal(405, "method_not_allowed", f"{request.method} is not allowed for {shown}", headers=allow)
        raise Refusal(404, "unknown_route", f"no such route: {shown}")

    def _methods(self, request: Request) -> set[str]:
        """The methods of the request's path."""
        partly = (route for route in self.served if route.matches(request.scope)[0] is Match.PARTIAL)
        return {method for route in partly if isinstance(route, Route) for method in route.methods or ()}


class _Rest:
    """The fallback as an ASGI application."""

    def __init__(self, fallback: Fallback) -> None:
        self._fallback = fallback

    async def __call__(self, scope: StarletteScope, receive: Receive, send: Send) -> None:
        await self._fallback.answer(scope, receive, send)


def _shape(request: Request, of_model_api: bool) -> Shape:
    """The error shape of the API that a path belongs to, or resembles."""
    path = request.scope["path"]
    if not of_model_api and not f"{path}/".startswith(MODEL_PREFIXES):
        return leyden_shape
    if path.rpartition("/")[2] in tuple(Signal):
        return otlp_shape(request)
    return face_shape(MESSAGES if ANTHROPIC_HEADER in request.headers else CHAT)
