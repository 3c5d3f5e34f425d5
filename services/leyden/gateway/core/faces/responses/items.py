"""From a Responses API input to chat messages: what one turn of the assistant was becomes one message again.

Reasoning, text and tool calls are items of their own there; a chat template writes them as one assistant message, and
only that gives back the tokens which were sampled.
"""

from collections.abc import Callable, Mapping
from typing import Any

from leyden.gateway.core.faces.base import REASONING
from leyden.gateway.core.faces.responses.sealed import unseal
from leyden.gateway.core.prepare import JsonDict
from leyden.gateway.core.refusals import Refusal

ROLES = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}
"""Input roles and the chat roles that open models' templates know."""


def refused(message: str, param: str) -> Refusal:
    """The 400 for a request that cannot be said as a chat request."""
    return Refusal(400, "invalid_request", message, param=param)


def messages_of(instructions: object, given: object) -> list[JsonDict]:
    """The chat messages of `instructions` and `input`. Raises a 400 `Refusal` that names the item at fault."""
    messages: list[JsonDict] = []
    if instructions is not None:
        messages.append({"role": "system", "content": _string(instructions, "instructions")})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise refused("`input` must be a string or a list of at least one item", "input")
    turn = _Conversation(messages)
    for index, item in enumerate(given):
        turn.add(item, f"input[{index}]")
    return turn.messages


class _Conversation:
    """Messages so far, and the assistant's turn that is being put together."""

    def __init__(self, messages: list[JsonDict]) -> None:
        self.messages = messages
        self._open: JsonDict | None = None
        self._kinds: dict[str, Callable[[JsonDict, str], None]] = {
            "message": self._message,
            "function_call": self._function_call,
            "function_call_output": self._function_call_output,
            "reasoning": self._reasoning,
        }

    def add(self, item: object, where: str) -> None:
        """One item of the input."""
        if not isinstance(item, dict):
            raise refused(f"`{where}` must be an object", where)
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "item_reference":
            raise refused("the gateway keeps no items: send the item itself, not a reference to it", where)
        if not isinstance(kind, str) or kind not in self._kinds:
            raise refused(f"items of type {str(kind)[:64]!r} are not served here", f"{where}.type")
        self._kinds[kind](item, where)

    def _message(self, item: JsonDict, where: str) -> None:
        role = item.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise refused(f"`role` must be one of {', '.join(ROLES)}", f"{where}.role")
        if role == "assistant":
            self._assistant("content", _text(item.get("content"), f"{where}.content"))
            return
        self._open = None
        self._plain(ROLES[role], _content(item.get("content"), f"{where}.content"))

    def _plain(self, role: str, content: str | list[JsonDict]) -> None:
        """Add a message; leading system texts are one message, since templates take one and at the beginning."""
        first = self.messages[0] if len(self.messages) == 1 else None
        texts = isinstance(content, str) and first is not None and isinstance(first["content"], str)
        if first is not None and texts and role == first["role"] == "system":
            first["content"] += f"\n\n{content}"
        else:
            self.messages.append({"role": role, "content": content})

    def _function_call(self, item: JsonDict, where: str) -> None:
        name = _string(item.get("name"), f"{where}.name")
        arguments = _string(item.get("arguments"), f"{where}.arguments")
        call_id = _string(item.get("call_id"), f"{where}.call_id")
        function = {"name": name, "arguments": arguments}
        turn = self._turn()
        turn.setdefault("tool_calls", []).append({"id": call_id, "type": "function", "function": function})

    def _function_call_output(self, item: JsonDict, where: str) -> None:
        self._open = None
        call_id = _string(item.get("call_id"), f"{where}.call_id")
        content = _content(item.get("output"), f"{where}.output")
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": content})

    def _reasoning(self, item: JsonDict, where: str) -> None:
        said = item.get("content") or unseal(item.get("encrypted_content")) or item.get("summary") or []
        if text := _text(said, f"{where}.content"):
            self._assistant(REASONING, text)

    def _assistant(self, name: str, text: str) -> None:
        """Say `text` in the assistant's turn, in a new one where this turn has it already, or is past it."""
        turn = self._turn()
        if turn.get(name) is not None or turn["content"] is not None or "tool_calls" in turn:
            self._open = None
            turn = self._turn()
        turn[name] = text

    def _turn(self) -> JsonDict:
        if self._open is None:
            self._open = {"role": "assistant", "content": None}
            self.messages.append(self._open)
        return self._open


def _text(content: object, where: str) -> str:
    """The text of what the model said."""
    if isinstance(content, str):
        return content
    return "".join(_string(part.get("text", part.get("refusal")), f"{at}.text") for part, at in _parts(content, where))


def _content(content: object, where: str) -> str | list[JsonDict]:
    """What was said to the model; a single text is a string, as most templates want it."""
    if isinstance(content, str):
        return content
    parts = [_part(part, at) for part, at in _parts(content, where)]
    return str(parts[0]["text"]) if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(part: JsonDict, where: str) -> JsonDict:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": _string(part.get("text"), f"{where}.text")}
    if kind == "input_image":
        return {"type": "image_url", "image_url": _image(part, where)}
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    if kind == "input_file" and isinstance(part.get("file_data"), str):
        return {"type": "file", "file": {n: part[n] for n in ("file_data", "filename") if part.get(n) is not None}}
    if kind == "input_file":
        raise refused("the gateway keeps no files and fetches none: send `file_data`", where)
    raise refused(f"content of type {str(kind)[:64]!r} is not served here", f"{where}.type")


def _image(part: JsonDict, where: str) -> JsonDict:
    if part.get("image_url") is None:
        raise refused("the gateway keeps no files: send `image_url`", f"{where}.image_url")
    image: JsonDict = {"url": _string(part["image_url"], f"{where}.image_url")}
    return image | ({"detail": part["detail"]} if isinstance(part.get("detail"), str) else {})


def _parts(content: object, where: str) -> list[tuple[JsonDict, str]]:
    if not isinstance(content, list):
        raise refused(f"`{where}` must be a string or a list of parts", where)
    for index, part in enumerate(content):
        if not isinstance(part, dict):
            raise refused(f"`{where}[{index}]` must be an object", f"{where}[{index}]")
    return [(part, f"{where}[{index}]") for index, part in enumerate(content)]


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise refused(f"`{where}` must be a string", where)
    return value


def mapping(value: object, where: str) -> Mapping[str, Any]:
    """`value` as an object, an empty one for null; raises a 400 `Refusal` for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refused(f"`{where}` must be an object", where)
    return value
