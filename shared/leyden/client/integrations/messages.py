"""OpenAI's messages and Responses items in the form of the GenAI conventions: role and parts. Pure."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

Message = dict[str, Any]


def messages_of(items: Any, role: str = "user") -> list[Message]:
    """What went in or came out: a text, chat messages or Responses items, as `[{"role", "parts"}]`."""
    if isinstance(items, str):
        return [{"role": role, "parts": [_text(items)]}]
    return [_message(item, role) for item in map(_plain, items or ()) if item]


def _message(item: Mapping[str, Any], role: str) -> Message:
    kind = item.get("type")
    if kind in ("function_call", "custom_tool_call"):
        arguments = item.get("arguments", item.get("input"))
        return {"role": "assistant", "parts": [_call(item.get("call_id"), item.get("name"), arguments)]}
    if kind in ("function_call_output", "custom_tool_call_output") or item.get("role") == "tool":
        answer = item.get("output", item.get("content"))
        call_id = item.get("call_id") or item.get("tool_call_id")
        return {"role": "tool", "parts": [{"type": "tool_call_response", "id": call_id, "response": answer}]}
    if kind == "reasoning":
        return {"role": "assistant", "parts": _parts(item.get("summary") or item.get("content"), "reasoning")}
    calls = [_plain(call) for call in item.get("tool_calls") or ()]
    functions = [(call.get("id"), _plain(call.get("function") or {})) for call in calls]
    parts = _parts(item.get("content"), "text") + [_call(i, f.get("name"), f.get("arguments")) for i, f in functions]
    return {"role": item.get("role") or role, "parts": parts or [_other(item)]}


def _parts(content: Any, kind: str) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return [_text(content, kind)]
    parts: Iterable[Mapping[str, Any]] = map(_plain, content)
    return [_text(part["text"], kind) if isinstance(part.get("text"), str) else _other(part) for part in parts]


def _text(content: str, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "content": content}


def _call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    with suppress(ValueError):  # the model wrote no JSON: that is what the agent got
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}


def _other(item: Mapping[str, Any]) -> dict[str, Any]:
    return {**item, "type": str(item.get("type") or "other")}


def _plain(item: Any) -> Mapping[str, Any]:
    """A mapping, or a pydantic model as one."""
    if isinstance(item, Mapping):
        return item
    dump = getattr(item, "model_dump", None)
    plain = dump(mode="json", exclude_none=True) if dump else {}
    return plain if isinstance(plain, Mapping) else {}
