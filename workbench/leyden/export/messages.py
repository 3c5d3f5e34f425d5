"""Converts recorded chat messages to those that training tools read: role, text and tool calls only. Pure."""

from typing import NotRequired, TypedDict


class NotTextError(ValueError):
    """Not a message, or one with content other than text, such as an image."""


class Function(TypedDict):
    """A function call; `arguments` is the JSON text as the model wrote it."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A tool call of an assistant message."""

    id: str
    type: str
    function: Function


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str
    tool_calls: NotRequired[list[ToolCall]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


def plain_messages(recorded: object) -> list[Message]:
    """A request's `messages`. Raises NotTextError."""
    if not isinstance(recorded, list) or not recorded:
        raise NotTextError("no messages")
    return [plain_message(one) for one in recorded]


def plain_message(recorded: object) -> Message:
    """One message without empty or engine-specific fields. Raises NotTextError."""
    if not isinstance(recorded, dict):
        raise NotTextError("no message")
    message = Message(role=str(recorded.get("role") or "assistant"), content=_text(recorded.get("content")))
    if tool_calls := recorded.get("tool_calls"):
        message["tool_calls"] = [_tool_call(one) for one in tool_calls]
    if tool_call_id := recorded.get("tool_call_id"):
        message["tool_call_id"] = str(tool_call_id)
    if name := recorded.get("name"):
        message["name"] = str(name)
    return message


def _text(content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise NotTextError("a content part is not text")
    return "".join(str(text) for text in texts)


def _tool_call(recorded: object) -> ToolCall:
    function = recorded.get("function") if isinstance(recorded, dict) else None
    if not isinstance(recorded, dict) or not isinstance(function, dict):
        raise NotTextError("a tool call is not a function call")
    named = Function(name=str(function.get("name")), arguments=str(function.get("arguments") or "{}"))
    return ToolCall(id=str(recorded.get("id") or ""), type="function", function=named)
