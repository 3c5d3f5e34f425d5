"""One declaration per route: its handler, and its entry in the OpenAPI document."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from leyden.gateway.core.keys import Caller, KeyRing, Scope
from leyden.gateway.handlers.admission import Limiter
from leyden.gateway.http.bodies import Body, NoBody
from leyden.gateway.http.requests import ROLLOUT_PREFIX, App, Bodies, credentials, json_body, leyden_shape

JsonDict = dict[str, Any]
BodyT = TypeVar("BodyT", bound=Body)
WRITING = (400, 401, 403, 408, 413, 503)
LOOKING = (401, 403, 503)


def ref(name: str) -> JsonDict:
    """A schema by its name in `schemas.py`."""
    return {"$ref": f"#/components/schemas/{name}"}


def json(schema: str | JsonDict) -> JsonDict:
    """JSON content with a schema."""
    return {"application/json": {"schema": ref(schema) if isinstance(schema, str) else schema}}


EVENTS: JsonDict = {"text/event-stream": {"schema": ref("Event")}}
"""Content as a stream of server-sent events."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method on one path, or on several equivalent paths."""

    method: str
    path: str
    """With Starlette's parameters: `/v1/models/{model:path}`."""
    summary: str
    tag: str
    app: ASGIApp | None = None
    """The application that serves it; None if `leyden.service` serves it on the same port."""
    answers: dict[int, JsonDict]
    """Success status → its content by media type."""
    errors: tuple[int, ...] = ()
    error: JsonDict = field(default_factory=dict)
    """The content of every error."""
    body: type[BaseModel] | JsonDict | None = None
    """The model that validates the request's body, or its content by media type; None without a body."""
    body_required: bool = True
    bound: bool = False
    """Whether it is also served under `/rollouts/{rollout}`."""
    also_under: tuple[str, ...] = ()
    """Further prefixes, for clients with another base URL."""
    keyless: bool = False
    route: type[Route] = Route

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All prefixes of the path."""
        return ("", ROLLOUT_PREFIX) if self.bound else ("",)


def routes(operations: Sequence[Operation]) -> list[BaseRoute]:
    """Starlette's routes, in the order of the operations."""
    return [
        one.route(prefix + one.path, one.app, methods=[one.method], include_in_schema=prefix not in one.also_under)
        for one in operations
        if one.app is not None
        for prefix in (*one.prefixes, *one.also_under)
    ]


@dataclass(frozen=True)
class Asked(Generic[BodyT]):
    """An admitted request of `/leyden/v1`."""

    request: Request
    caller: Caller
    _kind: type[BodyT]
    _raw: bytes

    def body(self) -> BodyT:
        """Its body. Raises a 400 `Refusal` that names the invalid field."""
        return json_body(self._raw, self._kind)

    def parameter(self, name: str) -> str:
        """A path parameter."""
        return str(self.request.path_params[name])


@dataclass(frozen=True)
class LeydenRoutes:
    """The common start of all `/leyden/v1` routes: a key with the scope, a slot, a bounded body."""

    keys: KeyRing
    limiter: Limiter
    bodies: Bodies
    retry_after_s: float

    def operation(
        self,
        method: str,
        path: str,
        handle: Callable[[Asked[BodyT]], Awaitable[Response]],
        body: type[BodyT],
        *,
        summary: str,
        reply: str | JsonDict,
        scope: Scope | None = None,
        limiter: Limiter | None = None,
        tag: str = "tasks",
        status: int = 200,
        more: tuple[int, ...] = (),
    ) -> Operation:
        """An operation for keys with `scope` (None: `handle` decides), with a slot of `limiter` or the common one.

        A success has `status` and the schema `reply`; `more` lists errors that other routes do not have.
        """
        slots = limiter or self.limiter

        async def served(request: Request) -> Response:
            caller = self.keys.caller(*credentials(request))
            if scope is not None:
                caller.must(scope)
            slots.must_have_room()
            with self.bodies.budget.open() as reserve:
                raw = b"" if body is NoBody else await self.bodies.read(request, reserve)
                with slots.slot():
                    return await handle(Asked(request, caller, body, raw))

        return Operation(
            method=method,
            path=path,
            summary=summary,
            tag=tag,
            app=App(served, leyden_shape, self.retry_after_s),
            answers={status: json(reply)},
            errors=(*(LOOKING if body is NoBody else WRITING), *more),
            error=json("LeydenError"),
            body=None if body is NoBody else body,
        )
