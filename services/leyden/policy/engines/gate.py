"""The version gate: ASGI middleware that guarantees which weights answered each request. Imports no torch.

Each inference request holds a shared lock until its last byte, and its response header `x-leyden-policy-version` names
the weights. `POST /leyden/v1/weights` takes the lock exclusively: new requests wait, running ones finish, then the
weights are swapped. The gate also handles continuations of earlier calls (`continuing.py`), and stops the start of an
engine with the wrong kind of logprobs. vLLM creates the instance itself (`--middleware`), so settings come from the
environment.
"""

import asyncio
import hmac
import json
import logging
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leyden.engine_face import CONTINUE_HEADER, VERSION_HEADER
from leyden.policy.engines.continuing import CURRENT, Continuation, take_continuation
from leyden.policy.engines.lock import SwapLock
from leyden.policy.engines.naming import VersionName
from leyden.policy.engines.swap import EngineBrokenError, Swapper
from leyden.policy.engines.vllm_continuing import install
from leyden.policy.engines.vllm_swap import VllmSwapper
from leyden.policy.engines.weights import UnusableWeightsError, WeightsFolder, inspect_folder

logger = logging.getLogger(__name__)

WEIGHTS_PATH = "/leyden/v1/weights"
NOT_INFERENCE = ("/leyden/", "/health", "/ping", "/tokenize", "/detokenize")
LOOPBACK = frozenset({"127.0.0.1", "::1"})


class GateSettings(BaseSettings):
    """Settings of the middleware: environment variables `LEYDEN_ENGINE_…`."""

    model_config = SettingsConfigDict(env_prefix="LEYDEN_ENGINE_")

    policy: str = "policy"
    """Name of the policy: the part before `@` in its version names."""
    drain_s: float = Field(default=60.0, gt=0)
    """How long a swap waits for running requests before it fails and the old version stays live."""
    token: str = ""
    """Bearer token required for a swap. Empty: only clients on this machine may swap."""


class SwapRequest(BaseModel):
    """Body of `POST /leyden/v1/weights`."""

    model_config = ConfigDict(extra="forbid")

    version: str
    path: str


class VersionGate:
    """Wraps an engine's ASGI app. One instance per engine process."""

    def __init__(self, app: ASGIApp, swapper: Swapper | None = None, settings: GateSettings | None = None) -> None:
        self._app = app
        self._swapper: Swapper = swapper or VllmSwapper()
        self._settings = settings or GateSettings()
        self._lock = SwapLock()
        self._changing = asyncio.Lock()
        self._base = self._live = VersionName(self._settings.policy, 0)
        self._adapters: set[str] = set()
        self._broken = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan" and (wrong := self._swapper.misconfigured(scope.get("app"))):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": wrong})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == WEIGHTS_PATH:
            response = await self._weights(Request(scope, receive))
            await response(scope, receive, send)
        elif self._broken:
            await error(503, "engine_broken", self._broken)(scope, receive, send)
        elif scope["method"] == "POST" and not scope["path"].startswith(NOT_INFERENCE):
            await self._infer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        model, continuation = "", None
        if CONTINUE_HEADER in Headers(scope=scope):
            try:
                continuation, receive = await _take_continuation(Request(scope, receive))
            except ValueError as problem:
                await error(400, "invalid_request", str(problem))(scope, receive, send)
                return
            install(scope.get("app"))
        if self._swapper.serves_adapters(scope.get("app")):
            model, receive = await _peek_model(Request(scope, receive))
        previous = CURRENT.set(continuation)
        try:
            await self._answer(model, continuation, scope, receive, send)
        finally:
            CURRENT.reset(previous)

    async def _answer(
        self, model: str, continuation: Continuation | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        async with self._lock.shared():
            served = model if self._is_adapter_name(model) else str(self._base)

            async def named(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    headers[VERSION_HEADER] = served
                    headers.update(continuation.headers() if continuation else {})
                await send(message)

            await self._app(scope, receive, named)

    def _is_adapter_name(self, model: str) -> bool:
        # By name, not by whether it is loaded: an adapter may finish loading before the engine looks it up.
        try:
            return VersionName.parse(model).policy == self._settings.policy
        except ValueError:
            return False

    async def _weights(self, request: Request) -> JSONResponse:
        if request.method == "GET":
            return self._report(request.scope.get("app"))
        if request.method != "POST":
            return error(405, "method_not_allowed", "GET or POST")
        if not self._may_swap(request):
            return error(403, "forbidden", "a swap needs the engine's token or must come from the engine's machine")
        try:
            body = SwapRequest.model_validate_json(await request.body())
            version = VersionName.parse(body.version)
        except (ValidationError, ValueError) as problem:
            return error(400, "invalid_request", str(problem))
        if version.policy != self._settings.policy:
            return error(400, "wrong_policy", f"this engine serves {self._settings.policy}, not {version.policy}")
        return await self._change(request.scope.get("app"), version, Path(body.path))

    def _may_swap(self, request: Request) -> bool:
        if self._settings.token:
            shown = Headers(scope=request.scope).get("authorization", "")
            return hmac.compare_digest(shown.encode(), f"Bearer {self._settings.token}".encode())
        return request.client is None or request.client.host in LOOPBACK

    async def _change(self, app: Any, version: VersionName, path: Path) -> JSONResponse:
        async with self._changing:
            if self._broken:
                return error(503, "engine_broken", self._broken)
            try:
                await self._put_live(app, version, path)
            except UnusableWeightsError as problem:
                return error(422, "unusable_weights", str(problem))
            except TimeoutError:
                waited = f"{self._lock.in_flight} requests are still running after {self._settings.drain_s} s"
                return error(503, "drain_timeout", f"{waited}; {self._live} stays live")
            except EngineBrokenError as problem:
                self._broken = str(problem)
                logger.exception("the engine lost its weights and returns 503 until it is restarted")
                return error(500, "engine_broken", self._broken)
            except Exception as problem:  # the engine's own errors have no common type
                logger.exception("swap to %s failed, %s stays live", version, self._live)
                return error(500, "swap_failed", f"{problem}; {self._live} stays live")
        return self._report(app)

    async def _put_live(self, app: Any, version: VersionName, path: Path) -> None:
        if version == self._base or str(version) in self._adapters:
            self._live = version
            return
        weights = await asyncio.to_thread(inspect_folder, path)
        if weights.adapter and self._swapper.serves_adapters(app):
            await self._swapper.add_adapter(app, str(version), weights)
            self._adapters.add(str(version))
            self._live = version
        else:
            await self._swap_base(app, version, weights)

    async def _swap_base(self, app: Any, version: VersionName, weights: WeightsFolder) -> None:
        if self._adapters:
            raise UnusableWeightsError(f"cannot replace {self._base} while adapters of it are loaded")
        commit = await self._swapper.prepare(app, str(version), weights)
        async with self._lock.exclusive(self._settings.drain_s):
            await commit()
            self._base = self._live = version
        logger.info("policy version %s is live", version)

    def _report(self, app: Any) -> JSONResponse:
        live = str(self._live)
        content = {
            "version": live,
            "policy": self._settings.policy,
            "engine": self._swapper.engine,
            "model": live if live in self._adapters else self._settings.policy,
            "adapters": self._swapper.serves_adapters(app),
        }
        return JSONResponse(content)


def error(status: int, code: str, message: str) -> JSONResponse:
    """A response in OpenAI's error format."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


async def _peek_model(request: Request) -> tuple[str, Receive]:
    """The `model` of the request body, and a `receive` that returns the body again for the app."""
    body = await request.body()
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None  # the engine returns 400 itself
    model = parsed.get("model", "") if isinstance(parsed, dict) else ""
    return model if isinstance(model, str) else "", _again(request, body)


async def _take_continuation(request: Request) -> tuple[Continuation, Receive]:
    """The continuation in the request, and a `receive` that returns the body without it. Raises ValueError."""
    body, continuation = take_continuation(await request.body())
    # The body is shorter now; the app must not wait for the original length.
    headers = [pair for pair in request.scope["headers"] if pair[0] != b"content-length"]
    request.scope["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
    return continuation, _again(request, body)


def _again(request: Request, body: bytes) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await request.receive()

    return again
