"""From the engine's answer to the record and to what the caller sees: plain replies, and streams chunk by chunk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leyden.events import Choice, Usage, pack_floats, pack_ints
from leyden.gateway.core.prepare import JsonDict, Visible

ALWAYS_HIDDEN = ("prompt_text", "metrics")
CHOICE_HIDDEN = ("routed_experts",)


@dataclass(slots=True)
class ChoiceParts:
    """One sampled response as it comes in."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    message: JsonDict = field(default_factory=dict)


class ReplyParts:
    """Everything of one reply that is recorded. Fed with the plain reply, or with every chunk of a stream in order."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._choices: dict[int, ChoiceParts] = {}
        self.prompt_token_ids: list[int] = []
        self.usage = Usage()
        self.error: str | None = None

    def take(self, piece: Mapping[str, Any]) -> None:
        """Note one plain reply or one chunk; raises TypeError, ValueError or KeyError for what is neither."""
        if piece.get("error"):
            self.error = f"engine: {message_of(piece)}"
        self.prompt_token_ids = piece.get("prompt_token_ids") or self.prompt_token_ids
        if usage := piece.get("usage"):
            self.usage = Usage(
                prompt_tokens=usage["prompt_tokens"], completion_tokens=usage.get("completion_tokens") or 0
            )
        for choice in piece.get("choices") or ():
            self._take_choice(choice)

    def _take_choice(self, choice: Mapping[str, Any]) -> None:
        parts = self._choices.setdefault(int(choice["index"]), ChoiceParts())
        parts.token_ids += choice.get("token_ids") or ()
        parts.logprobs += [entry["logprob"] for entry in (choice.get("logprobs") or {}).get("content") or ()]
        parts.finish_reason = choice.get("finish_reason") or parts.finish_reason
        if "message" in choice:
            parts.message = dict(choice["message"])
        else:
            merge_delta(parts.message, choice.get("delta") or {})

    @property
    def finished(self) -> bool:
        """Whether every choice has said why it stopped."""
        return sum(parts.finish_reason is not None for parts in self._choices.values()) >= self._expected

    def counted(self) -> Usage:
        """Token counts from the ids themselves, for a reply that was cut off before its usage came."""
        completion = sum(len(parts.token_ids) for parts in self._choices.values())
        return Usage(prompt_tokens=len(self.prompt_token_ids), completion_tokens=completion)

    @property
    def torn(self) -> str | None:
        """Why the reply cannot be trained on, or None: every token needs the logprob it was sampled with."""
        for index, parts in sorted(self._choices.items()):
            if len(parts.token_ids) != len(parts.logprobs):
                return f"engine: choice {index} has {len(parts.token_ids)} token ids and {len(parts.logprobs)} logprobs"
        return None if self.prompt_token_ids else "engine: no prompt_token_ids in the reply"

    def choices(self) -> list[Choice]:
        """The choices by index, packed."""
        return [
            Choice(
                index=index,
                token_ids=pack_ints(parts.token_ids),
                logprobs=pack_floats(parts.logprobs),
                finish_reason=parts.finish_reason,
                message=parts.message,
            )
            for index, parts in sorted(self._choices.items())
        ]


def merge_delta(message: JsonDict, delta: Mapping[str, Any]) -> None:
    """Add a stream's delta to the message so far: texts grow, tool calls by their index."""
    for name, value in delta.items():
        if value is None:
            continue
        if name == "tool_calls":
            _merge_tool_calls(message.setdefault("tool_calls", []), value)
        elif name != "role" and isinstance(value, str) and isinstance(message.get(name), str):
            message[name] += value
        else:
            message[name] = value


def _merge_tool_calls(calls: list[JsonDict], deltas: list[JsonDict]) -> None:
    for delta in deltas:
        index = delta.get("index", len(calls))
        while len(calls) <= index:
            calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
        call, function = calls[index], delta.get("function") or {}
        call |= {name: delta[name] for name in ("id", "type") if delta.get(name)}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


def show(piece: JsonDict, visible: Visible, model: str) -> JsonDict | None:
    """What the caller sees of a reply or a chunk (changed in place); None for a chunk made for the record only."""
    if "error" in piece:
        return piece
    if not piece.get("choices") and piece.get("object") == "chat.completion.chunk" and not visible.usage_chunk:
        return None
    hidden = set(ALWAYS_HIDDEN)
    hidden |= set() if visible.token_ids else {"prompt_token_ids"}
    hidden |= set() if visible.prompt_logprobs else {"prompt_logprobs"}
    hidden |= set() if visible.kv_transfer_params else {"kv_transfer_params"}
    if piece.get("object") == "chat.completion.chunk" and not visible.usage_chunk:
        hidden.add("usage")
    for name in hidden:
        piece.pop(name, None)
    for choice in piece.get("choices") or ():
        _show_choice(choice, visible)
    piece["model"] = model
    return piece


def _show_choice(choice: JsonDict, visible: Visible) -> None:
    for name in CHOICE_HIDDEN if visible.token_ids else (*CHOICE_HIDDEN, "token_ids"):
        choice.pop(name, None)
    if not visible.logprobs:
        choice["logprobs"] = None


def message_of(body: object) -> str:
    """The message of an error in OpenAI's shape, or as much of anything else as helps."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    text = error.get("message", error) if isinstance(error, Mapping) else error
    return str(text)[:500]


class SseSplitter:
    """Server-sent events out of bytes that are cut anywhere. Comments and other fields than `data` are left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The payloads of the events that `piece` completed."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        done: list[bytes] = []
        for line in (raw.rstrip(b"\r") for raw in lines):
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                done.append(b"\n".join(self._data))
                self._data = []
        return done
