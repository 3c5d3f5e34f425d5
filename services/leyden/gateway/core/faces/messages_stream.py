"""A streamed reply as Anthropic's events: `message_start`, blocks, `message_delta`, `message_stop`.

Text and thinking leave as they come. A tool's input leaves in one piece, when the reply is finished: clients parse it,
and half of them stop the agent at arguments that are no JSON, which a model in training will write.
"""

from typing import Any

import orjson

from leyden.gateway.core.faces.base import StreamFace, named_event, reasoning_of
from leyden.gateway.core.faces.messages_words import (
    anthropic_error,
    message_id,
    stop_of,
    tool_use,
    usage_of,
)
from leyden.gateway.core.prepare import JsonDict
from leyden.gateway.core.refusals import Refusal

PING = named_event("ping", {"type": "ping"})
PING_EVERY = 32
"""Held pieces of a tool's input between two pings: a reader must not take a long tool call for a dead stream."""


class MessagesStream(StreamFace):
    """The events of one message."""

    def __init__(self) -> None:
        self._started = False
        self._open: str | None = None
        self._index = -1
        self._answered = False
        """Whether a text or a tool use came: thinking alone is no answer."""
        self._tools: dict[int, JsonDict] = {}
        self._held = 0
        self._stop: tuple[str, str | None] = ("end_turn", None)
        self._usage: JsonDict | None = None

    def feed(self, chunk: JsonDict) -> list[bytes]:
        events = [] if self._started else self._start(chunk)
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            events += self._grow("thinking", reasoning_of(delta)) + self._grow("text", delta.get("content"))
            for call in delta.get("tool_calls") or ():
                events += self._hold(call)
            if choice.get("finish_reason"):
                self._stop = stop_of(choice, self._tools)
                events += self._finish()
        return events

    def end(self) -> list[bytes]:
        events = [] if self._started else self._start({})
        events += self._finish()
        reason, sequence = self._stop
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        usage = usage_of(self._usage or {"prompt_tokens": self.prompt_tokens})
        events.append(named_event("message_delta", {"type": "message_delta", "delta": delta, "usage": usage}))
        return [*events, named_event("message_stop", {"type": "message_stop"})]

    def error(self, refusal: Refusal) -> bytes:
        return named_event("error", anthropic_error(refusal))

    def _start(self, chunk: JsonDict) -> list[bytes]:
        self._started = True
        message: JsonDict = {
            "id": message_id(str(chunk.get("id") or "")),
            "type": "message",
            "role": "assistant",
            "model": chunk.get("model") or "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of({"prompt_tokens": self.prompt_tokens}),
        }
        return [named_event("message_start", {"type": "message_start", "message": message}), PING]

    def _grow(self, kind: str, text: str | None) -> list[bytes]:
        """Add to the open block of this kind; another kind's is closed first."""
        if not text:
            return []
        events = []
        if self._open != kind:
            events += [*self._close(), self._begin({"type": kind, kind: ""} | _SIGNED.get(kind, {}))]
            self._open = kind
            self._answered |= kind == "text"
        return [*events, self._delta({"type": f"{kind}_delta", kind: text})]

    def _hold(self, call: JsonDict) -> list[bytes]:
        """Keep a piece of a tool call; now and then a ping says that there is more to come."""
        kept = self._tools.setdefault(call.get("index") or 0, {"id": "", "function": {"name": "", "arguments": ""}})
        kept["id"] = call.get("id") or kept["id"]
        for name, value in (call.get("function") or {}).items():
            kept["function"][name] = kept["function"].get(name, "") + (value or "")
        self._held += 1
        return [PING] if self._held % PING_EVERY == 0 else []

    def _finish(self) -> list[bytes]:
        """Close what is open, then the tool uses; a message that has neither those nor text gets an empty text."""
        events = self._close()
        tools, self._tools = self._tools, {}
        for _, call in sorted(tools.items()):
            events += self._tool(tool_use(call))
        if not tools and not self._answered:
            events += [self._begin({"type": "text", "text": ""}), *self._close()]
        self._answered = True
        return events

    def _tool(self, block: JsonDict) -> list[bytes]:
        text = orjson.dumps(block["input"]).decode()
        begin = self._begin(block | {"input": {}})
        return [begin, self._delta({"type": "input_json_delta", "partial_json": text}), *self._close()]

    def _begin(self, block: JsonDict) -> bytes:
        self._index += 1
        self._open = str(block["type"])
        return self._event("content_block_start", content_block=block)

    def _delta(self, delta: JsonDict) -> bytes:
        return self._event("content_block_delta", delta=delta)

    def _close(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        return [self._event("content_block_stop")]

    def _event(self, kind: str, **fields: Any) -> bytes:
        return named_event(kind, {"type": kind, "index": self._index} | fields)


_SIGNED: dict[str, JsonDict] = {"thinking": {"signature": ""}}
