"""A scripted policy server, and the completions that it answers with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

Reply = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


class ScriptedEngine:
    """A policy server on aiohttp that answers as the test says; by default two tokens, as vLLM does."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.version = "policy@3"
        self.reply: Reply = self.default
        self.routes: dict[str, Reply] = {}
        self.cancelled = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        self.bodies.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return await self.reply(request, body)

    async def elsewhere(self, request: web.Request) -> web.StreamResponse:
        """Any other route: 404 unless the test put a reply there."""
        if reply := self.routes.get(request.path):
            body = orjson.loads(await request.read())
            self.bodies.append(body)
            return await reply(request, body)
        return web.json_response({"detail": "Not Found"}, status=404)

    async def default(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return await (self.streamed(request, body) if body.get("stream") else self.plain(body))

    async def plain(self, body: dict[str, Any]) -> web.StreamResponse:
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return web.json_response(completion(body), headers={"x-leyden-policy-version": self.version})

    async def streamed(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-leyden-policy-version": self.version})
        response.content_type = "text/event-stream"
        await response.prepare(request)
        try:
            for chunk in chunks(body):
                await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
                await self.hold.wait()
            await response.write(b"data: [DONE]\n\n")
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled.set()
            raise
        return response


def logprobs(*pairs: tuple[str, float]) -> dict[str, Any]:
    return {"content": [{"token": t, "logprob": p, "bytes": list(t.encode()), "top_logprobs": []} for t, p in pairs]}


def completion(body: dict[str, Any]) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": "Hi!", "tool_calls": None},
            "logprobs": logprobs(("Hi", -0.5), ("!", -0.25)),
            "token_ids": [7, 8],
            "finish_reason": "stop",
            "routed_experts": None,
        }
        for index in range(body.get("n") or 1)
    ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": choices,
        "usage": {"prompt_tokens": 3, "completion_tokens": 2 * len(choices), "total_tokens": 3 + 2 * len(choices)},
        "prompt_token_ids": [1, 2, 3],
        "prompt_logprobs": None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "metrics": None,
    }


def chunks(body: dict[str, Any]) -> list[dict[str, Any]]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

    def choice(delta: dict[str, Any], tokens: list[int], probs: dict[str, Any] | None, finish: str | None) -> list[Any]:
        return [{"index": 0, "delta": delta, "logprobs": probs, "token_ids": tokens, "finish_reason": finish}]

    opening = {"role": "assistant", "content": ""}
    return [
        head | {"choices": choice(opening, [], None, None), "prompt_token_ids": [1, 2, 3]},
        head | {"choices": choice({"content": "Hi"}, [7], logprobs(("Hi", -0.5)), None)},
        head | {"choices": choice({"content": "!"}, [8], logprobs(("!", -0.25)), "stop")},
        head | {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
    ]


@asynccontextmanager
async def engine_server(engine: ScriptedEngine) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", engine.handle)
    app.router.add_post("/{path:.*}", engine.elsewhere)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await runner.cleanup()
