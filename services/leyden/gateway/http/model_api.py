"""The model API: one route per face, also under `/rollouts/{id}`. Replies and errors have the face's shapes."""

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from leyden.gateway.core.agents import NAME_HEADER, NOBODY, ROLE_HEADER, Agent, agent_of
from leyden.gateway.core.faces import CHAT, COMPLETIONS, EMBEDDINGS, FACES, MESSAGES, RESPONSES, Face
from leyden.gateway.core.refusals import Refusal, unavailable
from leyden.gateway.core.routing import CALL_HEADER
from leyden.gateway.handlers.admission import counted
from leyden.gateway.handlers.calls import ModelCalls
from leyden.gateway.handlers.servers import EngineError
from leyden.gateway.http.operations import EVENTS, JsonDict, Operation, json
from leyden.gateway.http.requests import (
    CLIENT_CLOSED_REQUEST,
    Bodies,
    credentials,
    face_shape,
    note_wait,
    request_ids,
)
from leyden.kafka import Retry

T = TypeVar("T")
AGENT_HEADERS = frozenset({NAME_HEADER.encode(), ROLE_HEADER.encode(), b"baggage"})
ERRORS = (400, 401, 403, 404, 408, 409, 413, 429, 502, 503, 504)
OPENAI, ANTHROPIC = json("OpenAIError"), json("AnthropicError")
TOLD: dict[Face, tuple[str, JsonDict, JsonDict, JsonDict]] = {
    CHAT: ("OpenAI chat completions.", json("ChatRequest"), json("ChatCompletion") | EVENTS, OPENAI),
    RESPONSES: (
        "OpenAI responses.",
        json("ResponsesRequest"),
        json("Response") | EVENTS,
        OPENAI,
    ),
    MESSAGES: ("Anthropic messages.", json("MessagesRequest"), json("Message") | EVENTS, ANTHROPIC),
    COMPLETIONS: ("OpenAI text completions.", json("CompletionRequest"), json("Completion") | EVENTS, OPENAI),
    EMBEDDINGS: (
        "OpenAI embeddings, from who has them.",
        json("EmbeddingsRequest"),
        json("Embeddings"),
        OPENAI,
    ),
}
"""Per face: summary, request, reply and error in the OpenAPI document."""


@dataclass(frozen=True)
class ModelApi:
    """The dependencies of the model API."""

    calls: ModelCalls
    bodies: Bodies
    retry_after_s: float

    def operations(self) -> list[Operation]:
        """One operation per face, the busiest first."""
        return [self._operation(face, *TOLD[face]) for face in FACES]

    def _operation(self, face: Face, summary: str, body: JsonDict, answer: JsonDict, error: JsonDict) -> Operation:
        return Operation(
            method="POST",
            path=face.route,
            summary=summary,
            tag="model API",
            app=_CallApp(self, face),
            body=body,
            answers={200: answer},
            errors=ERRORS,
            error=error,
            bound=True,
        )


class _CallApp:
    """The ASGI application of one face."""

    def __init__(self, api: ModelApi, face: Face) -> None:
        self._api = api
        self._face = face
        self._shape = face_shape(face)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = HttpExchange(scope, receive, send, self._api.bodies)
        note_wait(exchange.request)
        try:
            await self._api.calls.serve(self._face, exchange)
        except EngineError as error:
            await exchange.respond(self._passed_on(error))
        except Refusal as refusal:
            await exchange.respond(self._shape(counted(refusal)))
        except Retry:
            await exchange.respond(self._shape(counted(unavailable(self._api.retry_after_s))))
        except ClientDisconnect:
            await exchange.respond(Response(status_code=CLIENT_CLOSED_REQUEST))
        else:
            await exchange.end()

    def _passed_on(self, error: EngineError) -> Response:
        call_id = error.request_id or ""
        headers = request_ids(call_id) | ({"retry-after": error.retry_after} if error.retry_after else {})
        body = self._face.engine_error(error.status, error.body, call_id)
        return Response(body, error.status, headers, media_type="application/json")


class HttpExchange:
    """`CallExchange` on ASGI."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, bodies: Bodies) -> None:
        self.request = Request(scope, receive)
        self.extra_headers: dict[str, str] = {}
        self._send = send
        self._bodies = bodies
        self._started = self._ended = False

    @property
    def headers(self) -> Mapping[str, str]:
        return self.request.headers

    @property
    def credentials(self) -> list[str]:
        return credentials(self.request)

    @property
    def rollout(self) -> str | None:
        return self.request.path_params.get("rollout")

    def agent(self) -> Agent:
        if not any(name in AGENT_HEADERS for name, _ in self.request.scope["headers"]):
            return NOBODY
        headers = self.request.headers
        return agent_of(headers.get(NAME_HEADER), headers.get(ROLE_HEADER), headers.getlist("baggage"))

    async def body(self, held: ExitStack) -> bytes:
        return await self._bodies.read(self.request, held.enter_context(self._bodies.budget.open()))

    async def unless_gone(self, work: Coroutine[Any, Any, None]) -> None:
        await unless_gone(work, self.request.receive)

    @property
    def started(self) -> bool:
        return self._started

    async def whole(self, body: bytes, headers: Mapping[str, str]) -> None:
        await self.respond(Response(body, 200, self._told(headers), media_type="application/json"))

    async def start(self, headers: Mapping[str, str]) -> None:
        told = {"cache-control": "no-cache", "content-type": "text/event-stream; charset=utf-8"} | self._told(headers)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told.items()]
        self._started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def write(self, event: bytes) -> None:
        await self._send({"type": "http.response.body", "body": event, "more_body": True})

    async def respond(self, response: Response) -> None:
        """Send a complete reply."""
        response.headers.update(self.extra_headers)
        self._started = self._ended = True
        await response(self.request.scope, self.request.receive, self._send)

    async def end(self) -> None:
        """End the stream; reply to a caller who disconnected before anything was sent."""
        if not self._started:
            await self.respond(Response(status_code=CLIENT_CLOSED_REQUEST))
        elif not self._ended:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _told(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {**headers, **request_ids(headers[CALL_HEADER]), **self.extra_headers}


async def unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T | None:
    """The work's result; None if the caller disconnected first, which cancels the work.

    The work runs in the current task; only watching for the disconnect is a separate task.
    """
    working = asyncio.current_task()
    assert working is not None
    watch = _Watch(working)
    looking = asyncio.create_task(_gone(receive, watch))
    try:
        return await work
    except asyncio.CancelledError:
        if watch.cancelled and working.uncancel() == 0:
            return None
        raise
    finally:
        watch.over = True
        looking.cancel()


@dataclass(slots=True)
class _Watch:
    """State shared by the work and the watcher."""

    working: asyncio.Task[Any]
    over: bool = False
    cancelled: bool = False


async def _gone(receive: Receive, watch: _Watch) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if not watch.over:
        watch.cancelled = True
        watch.working.cancel()
