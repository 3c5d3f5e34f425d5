"""Requests that no other route takes: the model API at another base URL, else a 404 or 405 in the API's own shape.

OpenAI's clients take a base URL with `/v1`, Anthropic's one without: either works for both, below a rollout too.
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
    credential,
    face_shape,
    leyden_shape,
)

VERSION = "/v1"
MODEL_PREFIXES = ("/v1/", "/rollouts/")
MOST_SHOWN = 256


def with_fallback(operations: Sequence[Operation], keys: KeyRing, retry_after_s: float) -> list[BaseRoute]:
    """The operations' routes, the busiest first; then the model API's without `/v1` or with one too many, and the rest.

    Starlette tries routes in their order.
    """
    served = routes(operations)
    fallback = Fallback(keys, served, dict(_bare(operations)), retry_after_s)
    return [*served, *fallback.routes()]


def _bare(operations: Sequence[Operation]) -> list[tuple[tuple[str, str], ASGIApp]]:
    """(method, path without `/v1`) → what serves it, of the model API."""
    return [
        ((one.method, one.path.removeprefix(VERSION)), one.app)
        for one in operations
        if one.app is not None and one.tag == "model API" and "{" not in one.path
    ]


@dataclass(frozen=True)
class Fallback:
    """What takes every request that is left."""

    keys: KeyRing
    served: Sequence[BaseRoute]
    bare: dict[tuple[str, str], ASGIApp]
    retry_after_s: float

    def routes(self) -> list[BaseRoute]:
        """The bare routes of the model API, and one for every other path and method."""
        bare: list[BaseRoute] = [Route(path, app, methods=[method]) for (method, path), app in self.bare.items()]
        anywhere = [f"{prefix}/{{rest:path}}" for prefix in (VERSION, ROLLOUT_PREFIX, "")]
        # A route without methods takes every method.
        return bare + [Route(path, _Rest(self), include_in_schema=False) for path in anywhere]

    async def answer(self, scope: StarletteScope, receive: Receive, send: Send) -> None:
        """Serve the model API where the path means it, else say that nothing is there."""
        path = "/" + str(scope["path_params"]["rest"]).removeprefix("v1/").removeprefix("v1/")
        app = self.bare.get((scope["method"], path))
        if app is None:
            shape = _shape(Request(scope), path in {known for _, known in self.bare})
            app = App(partial(self._refused, path), shape, self.retry_after_s)
        await app(scope, receive, send)

    async def _refused(self, path: str, request: Request) -> Response:
        """Raises the refusal of a request that no route takes."""
        self.keys.caller(credential(request))
        shown = request.scope["path"][:MOST_SHOWN]
        if methods := {method for method, known in self.bare if known == path} | self._methods(request):
            allow = {"allow": ", ".join(sorted(methods))}
            raise Refusal(405, "method_not_allowed", f"{request.method} is not for {shown}", headers=allow)
        raise Refusal(404, "unknown_route", f"there is no {shown} here")

    def _methods(self, request: Request) -> set[str]:
        """The methods that the request's path is served for."""
        partly = (route for route in self.served if route.matches(request.scope)[0] is Match.PARTIAL)
        return {method for route in partly if isinstance(route, Route) for method in route.methods or ()}


class _Rest:
    """The fallback as an ASGI application."""

    def __init__(self, fallback: Fallback) -> None:
        self._fallback = fallback

    async def __call__(self, scope: StarletteScope, receive: Receive, send: Send) -> None:
        await self._fallback.answer(scope, receive, send)


def _shape(request: Request, of_model_api: bool) -> Shape:
    """The shape in which the API answers that a path belongs to, or would."""
    path = request.scope["path"]
    if not of_model_api and not f"{path}/".startswith(MODEL_PREFIXES):
        return leyden_shape
    if path.rpartition("/")[2] in tuple(Signal):
        return otlp_shape(request)
    return face_shape(MESSAGES if ANTHROPIC_HEADER in request.headers else CHAT)
