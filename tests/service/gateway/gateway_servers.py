"""Real servers that behave badly on purpose, for what the gateway does about it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

from leyden.gateway.core.upstreams import Timeouts, Upstream, UpstreamEntry, Upstreams

Reply = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
SHORT = Timeouts(connect_s=1.0, first_byte_s=None, total_s=10.0)


@asynccontextmanager
async def raw_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server below HTTP."""

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handled, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def passed_to(url: str, timeouts: Timeouts = SHORT, key: str | None = None, **entry: Any) -> Upstreams:
    """One upstream, `other`, for the model `judge` and all of `judge-*`."""
    fields: dict[str, Any] = {"name": "other", "models": ["judge", "judge-*"], "base_url": f"{url}/v1"}
    return Upstreams([Upstream(UpstreamEntry(**fields | entry), timeouts, key)])


def status(code: int, headers: dict[str, str] | None = None, text: str = "not now") -> Reply:
    """An engine that answers with an error."""

    async def reply(_: web.Request, __: dict[str, Any]) -> web.Response:
        return web.json_response({"error": {"message": text}}, status=code, headers=headers)

    return reply


def first(*replies: Reply, then: Reply) -> Reply:
    """An engine that answers so at first, and then so."""
    left = list(replies)

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return await (left.pop(0) if left else then)(request, body)

    return reply


async def as_another_vendor(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """A server that knows nothing of Leyden: no token ids, fields of its own, a usage chunk where it was asked for."""
    usage = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13, "vendor_cost": 0.1}
    head = {"id": "v-1", "created": 1, "model": "vendor/judge-2026", "service_tier": "default"}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "fine", "annotations": []}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "vendor_filter": {"hate": False}}
        return web.json_response(head | {"object": "chat.completion", "choices": [choice], "usage": usage})
    response = web.StreamResponse()
    response.content_type = "text/event-stream"
    await response.prepare(request)
    chunk = head | {"object": "chat.completion.chunk"}
    deltas: list[tuple[dict[str, Any], str | None]] = [
        ({"role": "assistant", "content": "fi"}, None), ({"content": "ne"}, None), ({}, "stop")
    ]  # fmt: skip
    for delta, finish in deltas:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish, "vendor_filter": {"hate": False}}]
        await response.write(b"data: " + orjson.dumps(chunk | {"choices": choices}) + b"\n\n")
    if (body.get("stream_options") or {}).get("include_usage"):
        await response.write(b"data: " + orjson.dumps(chunk | {"choices": [], "usage": usage}) + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response
