"""Streams chunk by chunk, for replies that no good server sends; and the shortest request of each model API."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

from service.gateway.gateway_scripts import VERSION_HEADERS
from service.gateway.gateway_servers import Reply

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
ASKS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "?"}]},
    MESSAGES: {"messages": [{"role": "user", "content": "?"}], "max_tokens": 9},
    RESPONSES: {"input": "?"},
}
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "served-name"}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk with one token."""
    probs = {"content": [{"token": "x", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    choice = {"index": 0, "delta": delta, "logprobs": probs, "token_ids": [7], "finish_reason": finish}
    return HEAD | {"choices": [choice]} | more


def sends(chunks: Sequence[dict[str, Any]], end: bytes = b"data: [DONE]\n\n", broken: bool = False) -> Reply:
    """An engine that streams these chunks, then `end`; `broken`: then it drops the connection."""

    async def reply(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers=VERSION_HEADERS)
        await response.prepare(request)
        for one in chunks:
            await response.write(b"data: " + orjson.dumps(one) + b"\n\n")
        await response.write(end)
        if broken:
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
        return response

    return reply
