"""Records what instrumentations emit: python tests/golden/record_spans.py NAME… --python <an environment with it>.

NAME is a file of span_agents/ (none: all); for one in JavaScript `--python` is a folder with its packages. The agent
runs against a scripted model, which answers under ids of its own, and exports to this process; what it sent is written
to spans/NAME.json as the OTLP requests that it was, in OTLP/JSON: `{"traces": […], "logs": […]}`. The environments are
those of requirements/dialects*.txt.
"""

import argparse
import base64
import gzip
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import scripted_engine  # type: ignore[import-not-found]  # noqa: E402

from bundled import NODE  # type: ignore[import-not-found]  # noqa: E402
from leyden.gateway.core.faces import MESSAGES, RESPONSES, Face  # noqa: E402
from leyden.gateway.core.refusals import Refusal  # noqa: E402

PORT = 18_473
"""Fixed: it is in the recordings."""
_WHERE = re.compile(r"[^\s\"'\\\\]*/(?=site-packages/|span_agents/|lib/python|node_modules/|\w+\.mjs)")
"""What stack traces say of the recording machine."""
_OF_THE_MACHINE = (
    "host.", "os.", "process.pid", "process.runtime", "process.owner", "process.command", "process.executable.path",
    "service.instance.id", "langsmith.metadata.revision_id", "system_", "cpu_", "memory_", "imported_",
)  # fmt: skip
_numbers = itertools.count(1)
traces: list[bytes] = []
logs: list[bytes] = []


def translated(face: Face) -> Callable[[Request], Awaitable[Response]]:
    """Another API of the scripted model, in the gateway's translation."""

    async def answer(request: Request) -> Response:
        body = await request.json()
        try:
            return JSONResponse(face.whole(completion(face.request(body)), body))
        except Refusal as refusal:
            return JSONResponse(face.error(refusal), refusal.status)

    return answer


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """What OpenAI answers to a chat completion."""
    message = scripted_engine.answer(body)
    prompt, made = len(scripted_engine.prompt_ids(body)), len(scripted_engine.body_ids(message))
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    usage = {
        "prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": 4},
    }  # fmt: skip
    head = {"id": f"chatcmpl-{next(_numbers)}", "created": 1, "model": f"{body['model']}-2026"}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}


async def chat(request: Request) -> Response:
    """`/v1/chat/completions`; streamed in two pieces when asked."""
    body = await request.json()
    reply = completion(body)
    if not body.get("stream"):
        return JSONResponse(reply)
    [choice] = reply.pop("choices")
    usage, message, finish = reply.pop("usage"), choice["message"], choice["finish_reason"]
    for call in message.get("tool_calls") or []:
        call["index"] = 0
    pieces: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": message, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
        {"choices": [], "usage": usage},
    ]
    lines = [f"data: {json.dumps({**reply, 'object': 'chat.completion.chunk', **piece})}\n\n" for piece in pieces]
    return StreamingResponse(iter([*lines, "data: [DONE]\n\n"]), media_type="text/event-stream")


async def embeddings(request: Request) -> Response:
    """`/v1/embeddings`: every text is the same vector."""
    texts = (await request.json())["input"]
    data = [{"object": "embedding", "index": i, "embedding": [0.5, 0.5]} for i in range(len(texts))]
    return JSONResponse(
        {"object": "list", "data": data, "model": "policy", "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    )


async def otlp(request: Request) -> Response:
    """What was exported, as it came."""
    body = await request.body()
    if request.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    (traces if request.url.path.endswith("traces") else logs).append(body)
    return Response(b"", media_type="application/x-protobuf")


async def anything(_request: Request) -> Response:
    """Metrics, and a product's own cloud: taken and forgotten."""
    return JSONResponse({"token": "t", "project_id": "p", "session_url": "http://localhost"})


ROUTES = [
    Route("/v1/chat/completions", chat, methods=["POST"]),
    Route("/v1/messages", translated(MESSAGES), methods=["POST"]),
    Route("/v1/responses", translated(RESPONSES), methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/v1/traces", otlp, methods=["POST"]),
    Route("/v1/logs", otlp, methods=["POST"]),
    Route("/{rest:path}", anything, methods=["GET", "POST", "PUT", "PATCH"]),
]


def recorded(agent: Path, python: str) -> dict[str, Any]:
    """Everything that a run of `agent` exported."""
    traces.clear()
    logs.clear()
    at = f"http://127.0.0.1:{PORT}"
    environment = {
        "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "."), "OPENAI_BASE_URL": f"{at}/v1",
        "OPENAI_API_KEY": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": at, "OTEL_SERVICE_NAME": "agent", "AT": at,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "PYTHONWARNINGS": "ignore",
        "QUESTION": "How many people live in Atlantis?", "ANTHROPIC_API_KEY": "none",
    }  # fmt: skip
    if agent.suffix == ".mjs":
        copied = Path(python) / agent.name  # Node looks for packages beside the program
        copied.write_text(agent.read_text())
        command = [str(NODE), copied.name]
    else:
        command = [python, str(agent)]
    folder = python if agent.suffix == ".mjs" else None
    subprocess.run(command, check=True, env=environment, timeout=180, cwd=folder)
    return {
        "traces": [_shown(ExportTraceServiceRequest.FromString(one)) for one in traces],
        "logs": [_shown(ExportLogsServiceRequest.FromString(one)) for one in logs],
    }


def _shown(request: ExportTraceServiceRequest | ExportLogsServiceRequest) -> dict[str, Any]:
    """The request as OTLP/JSON, which has ids in hexadecimal; nothing of the machine that recorded it."""
    found: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    return _mend(found)  # type: ignore[no-any-return]


def _mend(value: Any) -> Any:
    if isinstance(value, list):
        return [_mend(item) for item in value if not _of_the_machine(item)]
    if isinstance(value, dict):
        return {k: _hex(v) if k in ("traceId", "spanId", "parentSpanId") else _mend(v) for k, v in value.items()}
    return _WHERE.sub("", value) if isinstance(value, str) else value


def _of_the_machine(item: Any) -> bool:
    return isinstance(item, dict) and str(item.get("key", "")).startswith(_OF_THE_MACHINE)


def _hex(encoded: str) -> str:
    return base64.b64decode(encoded).hex()


def main() -> None:
    """Record what was named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--python", default=sys.executable)
    chosen = parser.parse_args()
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=ROUTES), port=PORT, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        for name in chosen.names or sorted(p.stem for p in (HERE / "span_agents").glob("[a-z]*.py")):
            [agent] = (HERE / "span_agents").glob(f"{name}.*")
            found = recorded(agent, chosen.python)
            (HERE / "spans").mkdir(exist_ok=True)
            (HERE / "spans" / f"{name}.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
            print(name, len(found["traces"]), "trace requests,", len(found["logs"]), "log requests")
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
