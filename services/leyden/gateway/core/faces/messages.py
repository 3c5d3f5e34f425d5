"""Anthropic `/v1/messages`: the face, its errors, plain and streamed replies. Requests are in `messages_request`.

Text and thinking are sent as they arrive. A tool's input is sent in one piece when the reply is complete: clients parse
it, and many stop the agent at invalid JSON, which a model in training will write.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from leyden.gateway.core.faces.messages_request import chat_request
from leyden.gateway.core.faces.openai import Face, StreamFace, named_event, reasoning_of
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import JsonDict
from leyden.gateway.core.tool_calls import ToolCalls

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
ERRORS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def message_id(chat_id: str) -> str:
    """The message id `msg_…` for the chat reply's id `chatcmpl-…`."""
    return "msg_" + chat_id.removeprefix("chatcmpl-")


def stop_of(choice: Mapping[str, Any], tool_calls: object) -> tuple[str, str | None]:
    """`stop_reason` and `stop_sequence` of a finished choice.

    vLLM's `stop_reason` is the stop string that matched; its `finish_reason` is "stop" for a tool call forced by name.
    """
    finish, met = choice.get("finish_reason") or "stop", choice.get("stop_reason")
    if finish == "stop" and tool_calls:
        return "tool_use", None
    if finish == "stop" and isinstance(met, str):
        return "stop_sequence", met
    return STOP_REASONS.get(finish, "end_turn"), None


def usage_of(usage: Mapping[str, Any] | None) -> JsonDict:
    """Token counts under Anthropic's names. Its input tokens do not include tokens read from a cache."""
    usage = usage or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": (usage.get("prompt_tokens") or 0) - cached,
        "output_tokens": usage.get("completion_tokens") or 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
    }


def tool_use(call: Mapping[str, Any]) -> JsonDict:
    """A `tool_use` block. Arguments that are not a JSON object become `{"arguments": <text>}`."""
    function = call["function"]
    text = function.get("arguments") or "{}"
    try:
        arguments = orjson.loads(text)
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {"arguments": text}
    return {"type": "tool_use", "id": call["id"], "name": function.get("name") or "", "input": arguments}


def anthropic_error(refusal: Refusal) -> JsonDict:
    """An error body in Anthropic's format. It has no `param`, so the message starts with it."""
    kind = ERRORS.get(refusal.status, "api_error" if refusal.status >= 500 else "invalid_request_error")
    message = f"{refusal.param}: {refusal.message}" if refusal.param else refusal.message
    error: JsonDict = {"type": kind, "message": message}
    if refusal.details is not None:
        error["details"] = dict(refusal.details)
    return {"type": "error", "error": error, "request_id": refusal.request_id}


PING = named_event("ping", {"type": "ping"})
PING_EVERY = 32
"""Held-back pieces of tool input per ping, so that clients do not take a long tool call for a dead stream."""


class MessagesStream(StreamFace):
    """The events of one streamed message."""

    def __init__(self) -> None:
        self._started = False
        self._id = ""
        self._open: str | None = None
        self._index = -1
        self._answered = False
        """Whether text or a tool use was sent; thinking alone is not an answer."""
        self._tools = ToolCalls("")
        self._called = False
        self._held = 0
        self._stop: tuple[str, str | None] = ("end_turn", None)
        self._usage: JsonDict | None = None

    def feed(self, chunk: JsonDict) -> list[bytes]:
        events = [] if self._started else self._start(chunk)
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            events += self._grow("thinking", reasoning_of(delta)) + self._grow("text", delta.get("content"))
            events += self._hold(delta.get("tool_calls") or [])
            if choice.get("finish_reason"):
                self._stop = stop_of(choice, self._tools or self._called)
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
        self._id = message_id(str(chunk.get("id") or ""))
        message: JsonDict = {
            "id": self._id,
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
        """Add text to the open block of this kind; an open block of another kind is closed first."""
        if not text:
            return []
        events = []
        if self._open != kind:
            events += [*self._close(), self._begin({"type": kind, kind: ""} | _SIGNED.get(kind, {}))]
            self._open = kind
            self._answered |= kind == "text"
        return [*events, self._delta({"type": f"{kind}_delta", kind: text})]

    def _hold(self, calls: list[JsonDict]) -> list[bytes]:
        """Hold back pieces of tool calls; every `PING_EVERY` pieces return a ping."""
        before = self._held // PING_EVERY
        self._tools.add(calls)
        self._held += len(calls)
        return [PING] * (self._held // PING_EVERY - before)

    def _finish(self) -> list[bytes]:
        """Close the open block, then send tool uses. A message with neither text nor tool uses gets an empty text."""
        events = self._close()
        tools, self._tools = self._tools.whole(), ToolCalls(self._id)
        self._called = self._called or bool(tools)
        for call in tools:
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


class MessagesFace(Face):
    """Anthropic's Messages API."""

    route = "/v1/messages"

    def request(self, body: JsonDict) -> JsonDict:
        return chat_request(body)

    def response_id(self, chat_id: str) -> str:
        return message_id(chat_id)

    def whole(self, shown: JsonDict, body: JsonDict) -> JsonDict:
        choice = shown["choices"][0]
        reason, sequence = stop_of(choice, choice["message"].get("tool_calls"))
        return {
            "id": message_id(shown["id"]),
            "type": "message",
            "role": "assistant",
            "model": shown["model"],
            "content": _content(choice["message"]),
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": usage_of(shown.get("usage")),
        }

    def stream(self, body: JsonDict) -> MessagesStream:
        return MessagesStream()

    def error(self, refusal: Refusal) -> JsonDict:
        return anthropic_error(refusal)

    def engine_error(self, status: int, body: bytes, call_id: str) -> bytes:
        return self.retold(status, body, call_id)


def _content(message: Mapping[str, Any]) -> list[JsonDict]:
    """The content blocks of a reply: thinking (if it has reasoning), text, tool uses. At least one block."""
    blocks: list[JsonDict] = []
    if thinking := reasoning_of(message):
        blocks.append({"type": "thinking", "thinking": thinking, "signature": ""})
    calls = message.get("tool_calls") or ()
    if message.get("content") or not calls:
        blocks.append({"type": "text", "text": message.get("content") or ""})
    return blocks + [tool_use(call) for call in calls]


def count_request(body: JsonDict) -> JsonDict:
    """The body for an engine's `/tokenize`, without `model`, from a `count_tokens` body."""
    chat = chat_request(body)
    fields = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs")
    return {name: chat[name] for name in fields if name in chat}


MESSAGES = MessagesFace()
