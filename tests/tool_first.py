"""ASGI middleware for a policy server of a model too small to think of its tools: one is used before it answers.

Which city it asks for, of those that there is a story of, and what it says afterwards, is the model's own. Nothing else
of a request is changed, but for the seed of its sampling, so that a run can be repeated.
"""

import copy
import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SEED = 7
CITIES = ["Leiden", "Delft", "Atlantis"]


class ToolFirst:
    """Wraps an engine's app: `--middleware tool_first.ToolFirst`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["path"] != "/v1/chat/completions":
            await self._app(scope, receive, send)
            return
        body = json.dumps(demanding(json.loads(await whole(receive)))).encode()
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def rest() -> Message:
            return unread.pop() if unread else await receive()

        await self._app({**scope, "headers": headers}, rest, send)


async def whole(receive: Receive) -> bytes:
    """The request's body; what a caller that left has sent until then."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def demanding(body: dict[str, Any]) -> dict[str, Any]:
    """The request, with one of its tools required while none of them was called."""
    seeded = {"seed": SEED} | body
    offered = {tool["function"]["name"] for tool in body.get("tools") or []}
    called = {call["function"]["name"] for message in body["messages"] for call in message.get("tool_calls") or []}
    if not offered or offered & called:
        return seeded
    tools = [known_cities(tool) for tool in body["tools"]]
    return seeded | {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False}


def known_cities(tool: dict[str, Any]) -> dict[str, Any]:
    """The tool, for which a city is one of `CITIES`: what a small model makes up need not end."""
    narrowed = copy.deepcopy(tool)
    properties = narrowed["function"].get("parameters", {}).get("properties", {})
    if "city" in properties:
        properties["city"]["enum"] = CITIES
    return narrowed
