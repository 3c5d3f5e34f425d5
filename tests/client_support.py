"""A gateway that tests start, stop and spoil: the HTTP contract on a real socket, everything in memory."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from leyden.ids import AttemptRef, new_rollout_id
from leyden.stack.ports import free_port

KEY = "test-key"
Handler = Callable[[Request], Awaitable[Response]]


class FakeGateway:
    """State outlives `stop` and `start`, as Kafka's and Redis's do a gateway's restart."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.queue: list[dict[str, Any]] = []
        self.ends: dict[str, list[dict[str, Any]]] = {}
        self.heartbeats: list[str] = []
        self.over: set[str] = set()
        self.starts: list[dict[str, Any]] = []
        self.spans: list[Any] = []
        self.resources: list[Any] = []
        self.keys: set[str | None] = set()
        self.answers: dict[str, list[Response]] = {}
        """Spoiled answers by path ending, given before the real ones."""
        self.rejected_spans = 0
        self.lease_s = 30.0
        """Of rollouts that are started or queued from now on."""
        self.silent: set[str] = set()
        """Path endings that get no answer until the gateway stops."""
        self.refused_heartbeats: list[str] = []
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        attempt = "/leyden/v1/rollouts/{rollout}/attempts/{n:int}"
        handlers: dict[str, Handler] = {
            "/leyden/v1/rollouts/claim": self._claim,
            "/leyden/v1/rollouts": self._start,
            f"{attempt}/heartbeat": self._heartbeat,
            f"{attempt}/end": self._end,
            "/v1/traces": self._traces,
        }
        routes = [Route(path, self._spoilable(h), methods=["POST"]) for path, h in handlers.items()]
        app = Starlette(routes=[*routes, Route("/leyden/v1/queue", self._queue, methods=["GET"])])
        config = uvicorn.Config(app, port=self.port, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_until(lambda: bool(self._server and self._server.started))

    def stop(self) -> None:
        if self._server and self._thread:
            self._server.should_exit = True
            self._thread.join(10)
        self._server = self._thread = None

    def enqueue(self, count: int = 1, **fields: Any) -> list[str]:
        """Queue attempts; their trace ids."""
        made = [self._rollout(**{"input": {"n": n}, **fields}) for n in range(count)]
        self.queue += made
        return [rollout["trace_id"] for rollout in made]

    def spans_of(self, trace_id: str) -> list[Any]:
        return [span for span in self.spans if span.trace_id.hex() == trace_id]

    def _rollout(self, **fields: Any) -> dict[str, Any]:
        ref = AttemptRef(new_rollout_id(), 0)
        return {
            "rollout_id": ref.rollout_id,
            "attempt": ref.attempt,
            "trace_id": ref.trace_id,
            "traceparent": f"00-{ref.trace_id}-00000000000000ff-01",
            "base_url": f"{self.url}/rollouts/{ref.trace_id}/v1",
            "api_key": f"lrk-{ref.trace_id}",
            "task_id": "task-1",
            "group_id": "group-1",
            "mode": "train",
            "timeout_s": 30.0,
            "lease_s": self.lease_s,
            "input": None,
            **fields,
        }

    def _spoilable(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            self.keys.add(request.headers.get("authorization"))
            while request.url.path.endswith(tuple(self.silent)) and self._server and not self._server.should_exit:
                await asyncio.sleep(0.01)
            for ending, answers in self.answers.items():
                if request.url.path.endswith(ending) and answers:
                    return answers.pop(0)
            return await handler(request)

        return answer

    async def _claim(self, request: Request) -> Response:
        asked = await request.json()
        deadline = time.monotonic() + asked["wait_s"]
        while not self.queue and time.monotonic() < deadline and self._server and not self._server.should_exit:
            await asyncio.sleep(0.01)
        given, self.queue = self.queue[: asked["limit"]], self.queue[asked["limit"] :]
        return JSONResponse({"rollouts": given})

    async def _start(self, request: Request) -> Response:
        asked = await request.json()
        self.starts.append(asked)
        task = asked.get("task", {})
        said = {name: task[name] for name in ("input", "mode", "timeout_s", "task_id") if name in task}
        return JSONResponse(self._rollout(**said), status_code=201)

    async def _queue(self, request: Request) -> Response:
        return JSONResponse({"queued": len(self.queue), "running": 0, "ended": len(self.ends)})

    async def _heartbeat(self, request: Request) -> Response:
        trace = _trace_of(request)
        if trace in self.over or trace in self.ends:
            self.refused_heartbeats.append(trace)
            return JSONResponse({"error": {"type": "over", "message": "the attempt is over"}}, 409)
        self.heartbeats.append(trace)
        return JSONResponse({"lease_s": 0.3})

    async def _end(self, request: Request) -> Response:
        body, trace = await request.json(), _trace_of(request)
        before = self.ends.setdefault(trace, [])
        if trace in self.over or (before and before[0] != body):
            return JSONResponse({"error": {"type": "over", "message": "ended otherwise"}}, 409)
        before.append(body)
        return JSONResponse({"status": body["status"], "final": True, "calls": 0})

    async def _traces(self, request: Request) -> Response:
        sent = ExportTraceServiceRequest.FromString(await request.body())
        for resource in sent.resource_spans:
            self.resources.append(resource.resource)
            for scope in resource.scope_spans:
                self.spans += scope.spans
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.rejected_spans
        return Response(answer.SerializeToString(), media_type="application/x-protobuf")


def attributes(span: Any) -> dict[str, Any]:
    """An OTLP span's attributes as plain values."""
    values = {pair.key: pair.value for pair in span.attributes}
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values.items()}


def wait_until(fact: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def _trace_of(request: Request) -> str:
    return AttemptRef(request.path_params["rollout"], request.path_params["n"]).trace_id
