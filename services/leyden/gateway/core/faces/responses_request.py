"""Translates a Responses API request to an equivalent chat request. What has no chat form is refused by name.

Reasoning, text and tool calls of one assistant turn are separate items there. A chat template writes them as one
message, and only that gives the tokens that were sampled.
"""

from collections.abc import Callable, Mapping
from typing import Any

from leyden.gateway.core.faces.openai import REASONING
from leyden.gateway.core.faces.responses_reply import unseal
from leyden.gateway.core.faces.responses_tools import chat_name, chat_tools, custom_arguments
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import JsonDict

ROLES = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}
"""Input roles → chat roles that templates of open models know."""


def refused(message: str, param: str) -> Refusal:
    """The 400 for a request that cannot be translated."""
    return Refusal(400, "invalid_request", message, param=param)


def messages_of(instructions: object, given: object) -> list[JsonDict]:
    """The chat messages of `instructions` and `input`. Raises a 400 `Refusal` that names the invalid item."""
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
    """The messages so far, and the assistant turn in progress."""

    def __init__(self, messages: list[JsonDict]) -> None:
        self.messages = messages
        self._open: JsonDict | None = None
        self._kinds: dict[str, Callable[[JsonDict, str], None]] = {
            "message": self._message,
            "function_call": self._function_call,
            "function_call_output": self._function_call_output,
            "custom_tool_call": self._custom_tool_call,
            "custom_tool_call_output": self._function_call_output,
            "reasoning": self._reasoning,
        }

    def add(self, item: object, where: str) -> None:
        """One item of the input."""
        if not isinstance(item, dict):
            raise refused(f"`{where}` must be an object", where)
        kind = item.get("type") or ("message" if "role" in item else None)
        if not isinstance(kind, str) or kind not in self._kinds:
            raise refused(f"items of type {str(kind)[:64]!r} are not supported", f"{where}.type")
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
        """Add a message; leading system texts become one message, as templates accept only one, at the beginning."""
        first = self.messages[0] if len(self.messages) == 1 else None
        texts = isinstance(content, str) and first is not None and isinstance(first["content"], str)
        if first is not None and texts and role == first["role"] == "system":
            first["content"] += f"\n\n{content}"
        else:
            self.messages.append({"role": role, "content": content})

    def _function_call(self, item: JsonDict, where: str) -> None:
        self._call(item, _string(item.get("arguments"), f"{where}.arguments"), where)

    def _custom_tool_call(self, item: JsonDict, where: str) -> None:
        self._call(item, custom_arguments(_string(item.get("input"), f"{where}.input")), where)

    def _call(self, item: JsonDict, arguments: str, where: str) -> None:
        name = chat_name(_string(item.get("name"), f"{where}.name"), item.get("namespace"))
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
        """Add `text` to the assistant turn; start a new turn if this one has text or is past it."""
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
    """The text of a model's output."""
    if isinstance(content, str):
        return content
    return "".join(_string(part.get("text", part.get("refusal")), f"{at}.text") for part, at in _parts(content, where))


def _content(content: object, where: str) -> str | list[JsonDict]:
    """The content of an input message; a single text becomes a string, as most templates need it."""
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
        raise refused("the gateway stores and fetches no files: send `file_data`", where)
    raise refused(f"content of type {str(kind)[:64]!r} is not supported", f"{where}.type")


def _image(part: JsonDict, where: str) -> JsonDict:
    if part.get("image_url") is None:
        raise refused("the gateway stores no files: send `image_url`", f"{where}.image_url")
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
    """`value` as an object; null becomes an empty one. Raises a 400 `Refusal` for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refused(f"`{where}` must be an object", where)
    return value


UNSERVED = ("conversation", "prompt", "context_management", "moderation")
"""Features of OpenAI's servers."""
TAKEN = frozenset(
    {
        *UNSERVED, "access_programs", "background", "image", "include", "input", "instructions", "max_output_tokens",
        "max_tool_calls", "messages", "metadata", "n", "parallel_tool_calls", "previous_response_id",
        "prompt_cache_options", "reasoning", "response_format", "store", "stream_options", "text", "tool_choice",
        "tools", "top_logprobs", "truncation",
    }
)  # fmt: skip
"""Fields that are translated or dropped; all others pass through."""
LOGPROBS = "message.output_text.logprobs"


def chat_request(body: JsonDict) -> JsonDict:
    """The chat request. Raises a 400 `Refusal` with `param`."""
    _must_be_served(body)
    chat = {name: value for name, value in body.items() if name not in TAKEN}
    chat["messages"] = messages_of(body.get("instructions"), body.get("input"))
    chat |= chat_tools(body) | _text_format(body) | _logprobs(body)
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    if (effort := mapping(body.get("reasoning"), "reasoning").get("effort")) is not None:
        chat["reasoning_effort"] = effort
    if body.get("stream") is True:
        chat["stream_options"] = {"include_usage": True}
    return chat


def _must_be_served(body: JsonDict) -> None:
    for name in UNSERVED:
        if body.get(name):
            raise refused(f"`{name}` is not supported", name)
    if body.get("background") is True:
        raise refused("`background` is not supported", "background")
    if body.get("n") not in (None, 1):
        raise refused("`n` must be 1", "n")
    mapping(body.get("metadata"), "metadata")


def _text_format(body: JsonDict) -> JsonDict:
    text = mapping(body.get("text"), "text")
    chat = {} if text.get("verbosity") is None else {"verbosity": text["verbosity"]}
    form = mapping(text.get("format"), "text.format")
    kind = form.get("type", "text")
    if kind == "json_object":
        return chat | {"response_format": {"type": kind}}
    if kind == "json_schema":
        schema = {n: form[n] for n in ("name", "description", "schema", "strict") if form.get(n) is not None}
        return chat | {"response_format": {"type": kind, "json_schema": schema}}
    if kind != "text":
        raise refused(f"the format {str(kind)[:64]!r} is not supported", "text.format.type")
    return chat


def _logprobs(body: JsonDict) -> JsonDict:
    include = body.get("include")
    if include is not None and not isinstance(include, list):
        raise refused("`include` must be a list", "include")
    top = body.get("top_logprobs")
    if LOGPROBS not in (include or ()) and not top:
        return {}
    return {"logprobs": True} | ({} if top is None else {"top_logprobs": top})
