"""Anthropic `/v1/messages`: the face, its errors, plain replies. Requests and streams are in modules of their own."""

from collections.abc import Mapping
from typing import Any

from leyden.gateway.core.faces.base import Face, reasoning_of
from leyden.gateway.core.faces.messages_request import chat_request
from leyden.gateway.core.faces.messages_stream import MessagesStream
from leyden.gateway.core.faces.messages_words import (
    anthropic_error,
    message_id,
    stop_of,
    tool_use,
    usage_of,
)
from leyden.gateway.core.prepare import JsonDict
from leyden.gateway.core.refusals import Refusal


class MessagesFace(Face):
    """Anthropic messages."""

    route = "/v1/messages"

    def request(self, body: JsonDict) -> JsonDict:
        return chat_request(body)

    def response_id(self, engine_id: str) -> str:
        return message_id(engine_id)

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
    """A reply's blocks: thinking where the model's reply has reasoning, text, tool uses; never none at all."""
    blocks: list[JsonDict] = []
    if thinking := reasoning_of(message):
        blocks.append({"type": "thinking", "thinking": thinking, "signature": ""})
    calls = message.get("tool_calls") or ()
    if message.get("content") or not calls:
        blocks.append({"type": "text", "text": message.get("content") or ""})
    return blocks + [tool_use(call) for call in calls]


def count_request(body: JsonDict) -> JsonDict:
    """What an engine's `/tokenize` is asked to count for a `count_tokens` body, but for its `model`."""
    chat = chat_request(body)
    fields = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs")
    return {name: chat[name] for name in fields if name in chat}


MESSAGES = MessagesFace()
