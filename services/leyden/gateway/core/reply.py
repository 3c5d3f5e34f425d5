"""Processes an engine's reply for the record and for the caller: plain replies, and streams chunk by chunk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson

from leyden.events import Choice, ModelCallRecorded, Usage, pack_floats, pack_ints
from leyden.gateway.core.faces.openai import message_of
from leyden.gateway.core.request import JsonDict, Visible
from leyden.gateway.core.routing import RoutedCall
from leyden.gateway.core.tool_calls import ToolCalls, whole_calls
from leyden.ids import derive

ALWAYS_HIDDEN = ("prompt_text", "metrics")
CHOICE_HIDDEN = ("routed_experts",)
MALFORMED = (LookupError, TypeError, ValueError, AttributeError)
"""Raised for a reply that is not a chat completion (`orjson.JSONDecodeError` is a `ValueError`)."""
CALLER_LEFT, INTERNAL = "cut_off:", "internal:"
"""Beginning of the error of a call whose caller disconnected, or that the gateway could not finish."""
MAX_CALL_ERROR = 500
"""Maximum characters of a call's error that are stored with its attempt."""
MAX_TOKENS = 2**31 - 1
"""Upper limit of a token count."""
CUT_SHORT = (None, "abort", "error")
"""Finish reasons of a response that the engine did not bring to its end."""
DONE = b"[DONE]"
"""The last payload of a stream."""
CHUNKS = ("chat.completion.chunk", "text_completion")
"""The `object` of stream chunks; a plain text completion has it too, and always has choices."""

TOKEN_LIMIT = 2**31
"""Token ids are recorded as int32."""
NO_LOGPROB = -9999.0
"""What vLLM writes for a logprob that is minus infinity or missing."""
ROUNDING = 1e-3
"""How far above 0 rounding can lift the logprob of a certain token."""


@dataclass(slots=True)
class ChoiceParts:
    """One sampled response in progress."""

    token_ids: list[Any] = field(default_factory=list)
    """As the engine sent them: perhaps not token ids, until `torn_choice` has looked at them."""
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None
    message: JsonDict = field(default_factory=dict)
    tool_calls: ToolCalls | None = None
    """Those of a stream."""

    def whole_message(self) -> JsonDict:
        """The message so far."""
        return self.message | ({"tool_calls": self.tool_calls.whole()} if self.tool_calls else {})


class WrongModelError(Exception):
    """The engine answered as another model than requested."""


UNUSABLE = (WrongModelError, *MALFORMED)
"""Raised while a reply is read or translated."""


class ReplyParts:
    """The part of a reply that is recorded. Feed it the plain reply, or every chunk of a stream in order.

    `expected` is the number of choices asked for, `version` the policy version in the reply's head, and `answers_as`
    the `model` that each piece must name, if the version is served as an adapter.
    """

    def __init__(self, expected: int, version: int | None = None, answers_as: str | None = None) -> None:
        self._expected = expected
        self._answers_as = answers_as
        self._choices: dict[int, ChoiceParts] = {}
        self.version = version
        self.first_token_s: float | None = None
        """Seconds from the call's arrival to its first token, if streamed; set by the caller of this class."""
        self.prompt_token_ids: list[Any] = []
        self.engine_id: str | None = None
        self.usage: Usage | None = None
        self.error: str | None = None

    def take(self, piece: JsonDict) -> None:
        """Add a plain reply or a chunk; its tool calls and error become canonical in place. Raises one of `MALFORMED`.

        Raises `WrongModelError` for a piece of another model, as it is then not known which version answered.
        """
        if (error := _error_in(piece)) is not None:
            piece["error"] = error
            self.error = f"engine: {message_of(piece)}"
        else:
            piece.pop("error", None)  # some servers send a null in every piece
        if self.engine_id is None and isinstance(piece.get("id"), str):
            self.engine_id = piece["id"]
        self._take_prompt(piece)
        if usage := piece.get("usage"):
            self.usage = Usage(
                prompt_tokens=_count(usage, "prompt_tokens"), completion_tokens=_count(usage, "completion_tokens")
            )
        for choice in piece.get("choices") or ():
            self._take_choice(choice)
        if self._answers_as is not None and piece.get("model") not in (None, self._answers_as):
            self.version = None
            raise WrongModelError(f"`{self._answers_as}` was asked for and the engine answers as {piece['model']!r}")

    def _take_choice(self, choice: Mapping[str, Any]) -> None:
        parts = self._choices.setdefault(int(choice.get("index") or 0), ChoiceParts())
        parts.token_ids += _items(choice.get("token_ids"))
        parts.logprobs += _logprobs(choice.get("logprobs"))
        if (finish := choice.get("finish_reason")) and not isinstance(finish, str):
            raise TypeError("`finish_reason` is not a text")
        parts.finish_reason = finish or parts.finish_reason
        if "message" in choice:
            if choice["message"].get("tool_calls"):
                choice["message"]["tool_calls"] = whole_calls(choice["message"]["tool_calls"])
            parts.message = dict(choice["message"])
        elif "text" in choice:
            self._take_prompt(choice)
            merge_delta(parts.message, {"role": "assistant", "content": choice["text"]})
        else:
            delta = choice.get("delta") or {}
            if calls := delta.get("tool_calls"):
                if parts.tool_calls is None:
                    parts.tool_calls = ToolCalls()
                delta["tool_calls"] = parts.tool_calls.add(calls)
            merge_delta(parts.message, delta)

    def _take_prompt(self, piece: Mapping[str, Any]) -> None:
        self.prompt_token_ids = _items(piece.get("prompt_token_ids")) or self.prompt_token_ids

    @property
    def finished(self) -> bool:
        """Whether every choice has a finish reason."""
        return sum(parts.finish_reason is not None for parts in self._choices.values()) >= self._expected

    def must_have_choices(self) -> None:
        """Raise ValueError if there is no choice where one was asked for."""
        if not self._choices and self._expected > 0:
            raise ValueError("no choices")

    def counted(self) -> Usage:
        """Token counts from the token ids, for a reply that ended before its usage came."""
        completion = sum(len(parts.token_ids) for parts in self._choices.values())
        return Usage(prompt_tokens=len(self.prompt_token_ids), completion_tokens=completion)

    @property
    def torn(self) -> str | None:
        """Why the reply cannot be trained on, or None. Every token needs its logprob, and the counts must agree."""
        for index, parts in sorted(self._choices.items()):
            if wrong := torn_choice(parts.token_ids, parts.logprobs):
                return f"engine: choice {index} has {wrong}"
            if parts.finish_reason in CUT_SHORT:
                return f"engine: choice {index} was not finished (finish_reason {parts.finish_reason})"
        if not self.prompt_token_ids or not are_token_ids(self.prompt_token_ids):
            return "engine: no prompt_token_ids in the reply"
        if len(self._choices) != self._expected:  # or two came under one index
            return f"engine: {len(self._choices)} choices where {self._expected} were asked for"
        counted = self.counted()
        wrong = torn_counts(self.usage, counted.prompt_tokens, counted.completion_tokens)
        return f"engine: {wrong}" if wrong else None

    def outcome(self, traced: bool) -> tuple[str | None, str]:
        """(error, metric label) of a complete reply; `traced`: it must have its tokens."""
        if self.error:
            return self.error, "engine_error"
        torn = self.torn if traced else None
        return torn, "torn" if torn else "ok"

    def choices(self) -> list[Choice]:
        """The choices by index, packed. Token ids or logprobs that are none are left out."""
        return [
            Choice(
                index=index,
                token_ids=packed_ids(parts.token_ids),
                logprobs=pack_floats(parts.logprobs) if are_logprobs(parts.logprobs) else b"",
                finish_reason=parts.finish_reason,
                message=parts.whole_message(),
            )
            for index, parts in sorted(self._choices.items())
        ]


def _count(usage: Mapping[str, Any], name: str) -> int:
    """A token count of an engine; 0 if it says none. Raises ValueError for a number that is none."""
    count = usage.get(name) or 0
    if not isinstance(count, int) or not 0 <= count <= MAX_TOKENS:
        raise ValueError(f"`{name}` is no number of tokens")
    return int(count)


def _items(value: object) -> list[Any]:
    """The items of a list; none for null. Anything else is one item, which is neither a token id nor a logprob."""
    return value if isinstance(value, list) else [value] if value else []


def _logprobs(probs: object) -> list[Any]:
    """The logprobs of a choice's tokens, as chat or text completions have them; None for what has none."""
    if not isinstance(probs, dict):
        return [None] if probs else []
    content = [entry.get("logprob") if isinstance(entry, dict) else None for entry in _items(probs.get("content"))]
    return content + _items(probs.get("token_logprobs"))


def packed_ids(values: list[Any]) -> bytes:
    """`values` packed; empty if they are not token ids."""
    return pack_ints(values) if are_token_ids(values) else b""


def are_token_ids(values: object) -> bool:
    """Whether `values` is a list of token ids; true for an empty one."""
    if not isinstance(values, list) or not set(map(type, values)) <= {int}:
        return False
    return not values or (min(values) >= 0 and max(values) < TOKEN_LIMIT)


def are_logprobs(values: Sequence[Any]) -> bool:
    """Whether `values` are logprobs of tokens that can be sampled: numbers, finite, and not above 0."""
    return all(type(value) in (float, int) and NO_LOGPROB < value <= ROUNDING for value in values)


def _error_in(piece: Mapping[str, Any]) -> object:
    """The error that a piece tells of, in any server's shape; None if it is a piece of a reply."""
    if piece.get("error"):
        return piece["error"]
    is_reply = "choices" in piece or "data" in piece
    if piece.get("object") == "error" or (not is_reply and ("message" in piece or "detail" in piece)):
        return {"message": str(piece.get("message") or piece.get("detail") or piece)[:500]}
    return None


def torn_choice(token_ids: Sequence[object], logprobs: Sequence[Any]) -> str | None:
    """What is wrong with the tokens of one choice; None if nothing is."""
    if len(token_ids) != len(logprobs):
        return f"{len(token_ids)} token ids and {len(logprobs)} logprobs"
    if not are_token_ids(token_ids):
        return "a token id that is not an int32"
    if not are_logprobs(logprobs):
        return "a logprob that is not a number from -9999 to 0"
    return None


def torn_counts(usage: Usage | None, prompt: int, completion: int) -> str | None:
    """How the engine's token counts differ from the tokens that came; None if they agree, or it sent none."""
    if usage is None:
        return None
    if usage.prompt_tokens != prompt:
        return f"{prompt} prompt_token_ids where usage says {usage.prompt_tokens}"
    if usage.completion_tokens != completion:
        return f"{completion} token ids where usage says {usage.completion_tokens}"
    return None


def merge_delta(message: JsonDict, delta: Mapping[str, Any]) -> None:
    """Add a stream's delta to the message: appends texts. Tool calls are merged by `ToolCalls`."""
    for name, value in delta.items():
        if value is None or name == "tool_calls":
            continue
        if name != "role" and isinstance(value, str) and isinstance(message.get(name), str):
            message[name] += value
        else:
            message[name] = value


def show(piece: JsonDict, visible: Visible, model: str) -> JsonDict | None:
    """The reply or chunk for the caller (changed in place); None for a chunk that only the record needs."""
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
    """Fields removed from a reply or chunk, and from its choices."""
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
    """Parses server-sent events from chunks of bytes. Ignores comments and fields other than `data`."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The payloads of the events that `piece` completes."""
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

    def end(self) -> list[bytes]:
        """The payload of an event that has no final blank line when the body ends; none if it is cut off."""
        payload = b"".join(self.feed(b"\n\n"))
        try:
            return [payload] if payload == DONE or orjson.loads(payload) else []
        except orjson.JSONDecodeError:
            return []


def record_of(
    call: RoutedCall, reply: ReplyParts, latency_s: float, error: str | None = None, continues: str | None = None
) -> ModelCallRecorded:
    """The record of a call: the request, and the reply as far as it came."""
    ref, caller = call.binding.attempt, call.binding.caller
    # Not validated: the types are right, and the request was valid JSON. Validating a long conversation costs half a
    # millisecond.
    return ModelCallRecorded.model_construct(
        event_id=derive("model-call", call.call_id),
        event_time=call.started_at,
        producer="gateway",
        call_id=call.call_id,
        rollout_id=ref.rollout_id if ref else None,
        attempt=ref.attempt if ref else 0,
        trace_id=call.binding.trace_id,
        parent_span_id=call.binding.parent_span_id,
        agent_name=call.agent.name,
        agent_role=call.agent.role,
        route=call.face.route,
        requested_model=call.prepared.model,
        policy=None if call.upstream else call.name.policy,
        policy_version=reply.version,
        upstream=call.upstream.name if call.upstream else None,
        response_id=call.face.response_id(reply.engine_id) if reply.engine_id else None,
        project=caller.project,
        key_id=caller.key_id,
        request=call.request,
        sampling=call.prepared.sampling,
        prompt_token_ids=packed_ids(reply.prompt_token_ids),
        unseen=list(call.unseen),
        choices=reply.choices(),
        usage=reply.usage or reply.counted(),
        streamed=call.prepared.streamed,
        started_at=call.started_at,
        latency_s=round(latency_s, 6),
        time_to_first_token_s=reply.first_token_s,
        continues=continues,
        error=error,
    )


@dataclass(frozen=True, slots=True)
class CallNote:
    """What is stored of a call while its attempt runs."""

    error: str = ""
    finish_reason: str = ""
    output: str = ""
    """A digest of the output; "" for none."""


@dataclass(frozen=True, slots=True)
class LastCall:
    """The last call of an attempt, and how many calls in a row, including it, had its output."""

    call_id: str
    note: CallNote
    repeats: int


def note_of(call: ModelCallRecorded) -> CallNote:
    """The stored part of a recorded call."""
    finish = next((choice.finish_reason for choice in call.choices if choice.finish_reason), None)
    outputs = [_output(choice.message) for choice in call.choices]
    digest = derive("output", json.dumps(outputs)) if any(outputs) else ""
    return CallNote((call.error or "")[:MAX_CALL_ERROR], finish or "", digest)


def _output(message: Mapping[str, Any]) -> list[Any]:
    """A message's content and tool calls, without ids."""
    calls = [call.get("function") for call in message.get("tool_calls") or () if isinstance(call, dict)]
    asked = [[one.get("name"), one.get("arguments")] for one in calls if isinstance(one, dict)]
    content = message.get("content")
    return [content, asked] if content or asked else []
