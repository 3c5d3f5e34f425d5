"""Splits a message made of parts into chat messages, in the order of the parts.

Parts are those of the GenAI conventions, of Anthropic, Bedrock, Gemini, the AI SDK and Haystack: each has texts, tool
calls, tools' answers and reasoning under names of its own. Parts that are none of these stay in the content.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from leyden.events import Json, JsonObject
from leyden.ingest.core.values import is_empty, text, written

_CALLS = frozenset({"tool_call", "tool_use", "tool-call"})
_ANSWERS = frozenset({"tool_call_response", "tool_result", "tool-result", "tool-error"})
_REASONING = frozenset({"reasoning", "thinking"})
_TYPES = _CALLS | _ANSWERS | _REASONING
_KEYED_CALLS = ("toolUse", "function_call", "functionCall", "tool_call")
_KEYED_ANSWERS = ("toolResult", "function_response", "functionResponse", "tool_call_result")
_KEYS = frozenset({*_KEYED_CALLS, *_KEYED_ANSWERS, "text", "reasoningContent", "reasoning"})
"""Keys of parts without a type: Bedrock's, Gemini's, Haystack's."""
_CALL_ID = ("id", "toolUseId", "toolCallId", "call_id")
_CALL_NAME = ("name", "toolName", "tool_name")
_CALL_ARGUMENTS = ("arguments", "input", "args")
_ANSWERED_ID = ("id", "tool_use_id", "toolUseId", "toolCallId", "tool_call_id")
_ANSWER = ("response", "result", "content", "output", "error")


def has_parts(content: Json) -> bool:
    """Whether a message's content is a list with parts that chat messages have elsewhere, or that have no type."""
    if not isinstance(content, list):
        return False
    return any(
        isinstance(part, dict) and (part.get("type") in _TYPES if "type" in part else not _KEYS.isdisjoint(part))
        for part in content
    )


def of_parts(message: JsonObject, parts: list[Json], role: str) -> list[JsonObject]:
    """The parts as chat messages. A tool's answer is a message of its own; what follows it begins another one."""
    name = text(message.get("name"))
    found: list[JsonObject] = []
    current = _Message()
    for part in parts:
        if (answered := _answer(part)) is None:
            current.add(part)
            continue
        if not current.is_empty:
            found.append(current.written(role, name))
            current = _Message()
        found.append(answered)
    if not current.is_empty or not found:
        found.append(current.written(role, name))
    return found


def tool_call(id_: Json, name: Json, arguments: Json) -> JsonObject:
    """A tool call in OpenAI's format, with its arguments as JSON text."""
    said = arguments if arguments is None else written(arguments)
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": said}}


def unwrapped(content: Json) -> Json:
    """A tool's answer without its envelope: the text of text parts, Bedrock's `json`, the AI SDK's `value`."""
    if isinstance(content, dict) and content.get("type") in ("text", "json", "error-text", "error-json", "content"):
        return unwrapped(content["value"]) if "value" in content else content
    if not isinstance(content, list) or not content:
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    if len(texts) == len(content) and all(isinstance(said, str) for said in texts):
        return "\n".join(map(str, texts))
    only = content[0]
    return only["json"] if len(content) == 1 and isinstance(only, dict) and "json" in only else content


def unwrapped_arguments(given: Json) -> Json:
    """A tool's arguments without the wrapper of a decorator: `kwargs`, where there are no positional ones."""
    if not isinstance(given, dict) or not isinstance(given.get("kwargs"), dict) or given.get("args"):
        return given
    return given["kwargs"] if "args" in given or len(given) == 1 else given


@dataclass(slots=True)
class _Message:
    """Parts of one chat message."""

    content: list[Json] = field(default_factory=list)
    calls: list[Json] = field(default_factory=list)
    reasoning: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.content or self.calls or self.reasoning)

    def add(self, part: Json) -> None:
        """Add a part that is no tool's answer."""
        if not isinstance(part, dict):
            self.content.append(part)
        elif (said := _text(part)) is not None:
            self._say(said)
        elif (asked := _call(part)) is not None:
            self.calls.append(asked)
        elif (thought := _reasoning(part)) is not None:
            self.reasoning += thought
        else:
            self.content.append(part)

    def _say(self, said: str) -> None:
        last = self.content[-1] if self.content else None
        if isinstance(last, dict) and last.keys() == {"type", "text"} and last["type"] == "text":
            last["text"] = f"{last['text']}\n{said}"
        else:
            self.content.append({"type": "text", "text": said})

    def written(self, role: str, name: str | None) -> JsonObject:
        """The chat message; content that is one text is that text."""
        found: JsonObject = {"role": role}
        if self.reasoning:
            found["reasoning_content"] = self.reasoning
        only = self.content[0] if len(self.content) == 1 else None
        is_text = isinstance(only, dict) and only.keys() == {"type", "text"}
        found["content"] = only["text"] or None if is_text and isinstance(only, dict) else self.content or None
        if self.calls:
            found["tool_calls"] = self.calls
        if name:
            found["name"] = name
        return found


def first_said(part: Mapping[str, Json], *names: str) -> Json:
    """The value of the first of `names` that is not empty, else of the first that is there at all."""
    there = [part[name] for name in names if part.get(name) is not None]
    return next((value for value in there if not is_empty(value)), there[0] if there else None)


def _keyed(part: JsonObject, keys: tuple[str, ...]) -> JsonObject | None:
    """The object under one of `keys`, for parts without a type."""
    inner = next((part[key] for key in keys if key in part), None) if "type" not in part else None
    return inner if isinstance(inner, dict) else None


def _text(part: JsonObject) -> str | None:
    if part.get("type", "text") != "text" or part.get("thought") is True:
        return None
    said = first_said(part, "content", "text")
    return said if isinstance(said, str) else None


def _call(part: JsonObject) -> JsonObject | None:
    inner = part if part.get("type") in _CALLS else _keyed(part, _KEYED_CALLS)
    if inner is None:
        return None
    return tool_call(*(first_said(inner, *names) for names in (_CALL_ID, _CALL_NAME, _CALL_ARGUMENTS)))


def _answer(part: Json) -> JsonObject | None:
    if not isinstance(part, dict):
        return None
    inner = part if part.get("type") in _ANSWERS else _keyed(part, _KEYED_ANSWERS)
    if inner is None:
        return None
    origin = inner.get("origin")
    id_ = first_said(inner, *_ANSWERED_ID) or (origin.get("id") if isinstance(origin, dict) else None)
    flagged = inner.get("error") in (True, False)  # Haystack says there whether it is one
    content = first_said(inner, *(name for name in _ANSWER if not (flagged and name == "error")))
    return {"role": "tool", "tool_call_id": id_, "content": unwrapped(content)}


def _reasoning(part: JsonObject) -> str | None:
    if part.get("type") in _REASONING or part.get("thought") is True:
        said = first_said(part, "content", "text", "thinking")
    else:
        inner = _keyed(part, ("reasoningContent", "reasoning")) or {}
        held = first_said(inner, "reasoningText", "reasoning_text") or inner
        said = held.get("text") if isinstance(held, dict) else held
    return said if isinstance(said, str) else None
