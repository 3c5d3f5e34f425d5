"""Recorded chat messages as the plain ones that training tools read: role, text, tool calls, and nothing else. Pure."""

from typing import NotRequired, TypedDict


class NotTextError(ValueError):
    """A message holds something other than text (an image, say), or is none."""


class Function(TypedDict):
    """A function with its arguments, which stay the JSON text that the model wrote."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A tool call that a model asked for."""

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
    """One message without what is empty or an engine's own. Raises NotTextError."""
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
        raise NotTextError("a part is no text")
    return "".join(str(text) for text in texts)


def _tool_call(recorded: object) -> ToolCall:
    function = recorded.get("function") if isinstance(recorded, dict) else None
    if not isinstance(recorded, dict) or not isinstance(function, dict):
        raise NotTextError("a tool call of another kind than function")
    named = Function(name=str(function.get("name")), arguments=str(function.get("arguments") or "{}"))
    return ToolCall(id=str(recorded.get("id") or ""), type="function", function=named)
