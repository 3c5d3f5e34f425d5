"""How every route of `/leyden/v1` begins: a key that may ask, a place among what is served, a bounded body."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from leyden.gateway.core.keys import Caller, KeyRing, Scope
from leyden.gateway.http.errors import leyden_shape, telling
from leyden.gateway.http.intake import Limiter, credential, json_body

BodyT = TypeVar("BodyT", bound=BaseModel)
Ask = Callable[[Request, Caller], Awaitable[Response]]


@dataclass(frozen=True)
class Desk:
    """What these routes share."""

    keys: KeyRing
    limiter: Limiter
    max_body_bytes: int
    retry_after_s: float

    def route(
        self, method: str, path: str, ask: Ask, scope: Scope | None = None, limiter: Limiter | None = None
    ) -> Route:
        """A route for keys with `scope` (None: `ask` decides), which takes a place of `limiter`, or a common one."""
        places = limiter or self.limiter

        async def served(request: Request) -> Response:
            caller = self.keys.caller(credential(request))
            if scope is not None:
                caller.must(scope)
            with places.slot():
                return await ask(request, caller)

        return Route(path, telling(leyden_shape, self.retry_after_s)(served), methods=[method])

    async def body(self, request: Request, kind: type[BodyT]) -> BodyT:
        """The request's body. Raises a `Refusal`: 413, or a 400 that names the field that is wrong."""
        return await json_body(request, kind, self.max_body_bytes)
