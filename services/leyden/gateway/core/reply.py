"""From the engine's answer to the record and to what the caller sees: plain replies, and streams chunk by chunk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from leyden.events import Choice, Usage, pack_floats, pack_ints
from leyden.gateway.core.faces.openai import message_of
from leyden.gateway.core.request import JsonDict, Visible

ALWAYS_HIDDEN = ("prompt_text", "metrics")
CHOICE_HIDDEN = ("routed_experts",)
CHUNKS = ("chat.completion.chunk", "text_completion")
"""What pieces of a stream call themselves; a whole text completion does too, and always has choices."""


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
        self.engine_id: str | None = None
        self.usage: Usage | None = None
        self.error: str | None = None

    def take(self, piece: Mapping[str, Any]) -> None:
        """Note one plain reply or one chunk; raises TypeError, ValueError or KeyError for what is neither."""
        if piece.get("error"):
            self.error = f"engine: {message_of(piece)}"
        if self.engine_id is None and isinstance(piece.get("id"), str):
            self.engine_id = piece["id"]
        self.prompt_token_ids = piece.get("prompt_token_ids") or self.prompt_token_ids
        if usage := piece.get("usage"):
            self.usage = Usage(
                prompt_tokens=usage.get("prompt_tokens") or 0, completion_tokens=usage.get("completion_tokens") or 0
            )
        for choice in piece.get("choices") or ():
            self._take_choice(choice)

    def _take_choice(self, choice: Mapping[str, Any]) -> None:
        parts = self._choices.setdefault(int(choice.get("index") or 0), ChoiceParts())
        parts.token_ids += choice.get("token_ids") or ()
        if probs := choice.get("logprobs"):
            parts.logprobs += [entry["logprob"] for entry in probs.get("content") or ()]
            parts.logprobs += probs.get("token_logprobs") or ()
        parts.finish_reason = choice.get("finish_reason") or parts.finish_reason
        if "message" in choice:
            parts.message = dict(choice["message"])
        elif "text" in choice:
            self.prompt_token_ids = choice.get("prompt_token_ids") or self.prompt_token_ids
            merge_delta(parts.message, {"role": "assistant", "content": choice["text"]})
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
    if visible.untouched:
        return None if piece.get("usage") and not piece.get("choices") and _unasked_usage(piece, visible) else piece
    if not piece.get("choices") and _unasked_usage(piece, visible):
        return None
    if _unasked_usage(piece, visible) and (piece["object"] == CHUNKS[0] or piece.get("usage") is None):
        piece.pop("usage", None)
    of_piece, of_choice = _hidden(visible)
    for name in of_piece:
        piece.pop(name, None)
    for choice in piece.get("choices") or ():
        for name in of_choice:
            choice.pop(name, None)
        if not visible.logprobs:
            choice["logprobs"] = None
    piece["model"] = model
    return piece


@cache
def _hidden(visible: Visible) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is taken out of a reply or chunk, and of its choices."""
    of_piece, of_choice = list(ALWAYS_HIDDEN), list(CHOICE_HIDDEN)
    if not visible.token_ids:
        of_piece.append("prompt_token_ids")
        of_choice += ("token_ids", "prompt_token_ids")
    if not visible.prompt_logprobs:
        of_piece.append("prompt_logprobs")
    if not visible.kv_transfer_params:
        of_piece.append("kv_transfer_params")
    return tuple(of_piece), tuple(of_choice)


def _unasked_usage(piece: JsonDict, visible: Visible) -> bool:
    return piece.get("object") in CHUNKS and not visible.usage_chunk


class SseSplitter:
    """Server-sent events out of bytes that are cut anywhere. Comments and other fields than `data` are left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The payloads of the events that `piece` completed."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        done: list[bytes] = []
        for raw in lines:
            line = raw.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                done.append(b"\n".join(self._data))
                self._data = []
        return done
