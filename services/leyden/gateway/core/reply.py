"""Collects an engine's reply for the record, plain or chunk by chunk, and makes it canonical for its caller."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from leyden.events import Choice, ModelCallRecorded, Usage, pack_floats
from leyden.events.tokens import are_logprobs, are_token_ids, packed_ids
from leyden.gateway.core.faces.openai import message_of, plain_content
from leyden.gateway.core.request import JsonDict
from leyden.gateway.core.routing import RoutedCall
from leyden.gateway.core.tool_calls import ToolCalls, whole_calls
from leyden.ids import derive

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

    `call_id` is the model call's; ids that the server does not give are made of it. `expected` is the number of choices
    asked for. `legacy`: the caller knows calls as `function_call` only.
    """

    def __init__(
        self,
        call_id: str,
        expected: int,
        legacy: bool = False,
    ) -> None:
        self._call_id = call_id
        self._expected = expected
        self._legacy = legacy
        self.version: int | None = None
        """The policy version in the reply's head."""
        self.answers_as: str | None = None
        """The `model` that each piece must name, if the version is served as an adapter."""
        self._choices: dict[int, ChoiceParts] = {}
        self.first_token_s: float | None = None
        """Seconds from the call's arrival to its first token, if streamed; set by the caller of this class."""
        self.prompt_token_ids: list[Any] = []
        self.began = False
        """Whether any piece came."""
        self._said: dict[str, int] = {}
        """The counts of tokens that the engine sent."""
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
        self.began = True
        self._take_prompt(piece)
        if usage := piece.get("usage"):
            self._said |= {name: _count(usage[name]) for name in Usage.model_fields if usage.get(name) is not None}
        for choice in piece.get("choices") or ():
            self._take_choice(choice)
        if self.answers_as is not None and piece.get("model") not in (None, self.answers_as):
            self.version = None
            raise WrongModelError(f"`{self.answers_as}` was asked for and the engine answers as {piece['model']!r}")

    def _take_choice(self, choice: JsonDict) -> None:
        index = int(choice.get("index") or 0)
        parts = self._choices.setdefault(index, ChoiceParts())
        parts.token_ids += _items(choice.get("token_ids"))
        parts.logprobs += _logprobs(choice.get("logprobs"))
        self._take_finish(choice, parts)
        origin = f"{self._call_id}/{index}"
        if choice.get("message") is not None and not isinstance(choice.get("delta"), dict):
            parts.message = self._canonical_message(choice, origin)
        elif "text" in choice and "delta" not in choice:
            self._take_prompt(choice)
            merge_delta(parts.message, {"role": "assistant", "content": choice["text"]})
        else:
            choice["delta"] = choice.get("delta") or {}
            self._take_delta(choice, parts, origin)

    def _take_finish(self, choice: JsonDict, parts: ChoiceParts) -> None:
        """Of several finish reasons the first counts that says more than `stop`."""
        if not (finish := choice.get("finish_reason")):
            return
        if not isinstance(finish, str):
            raise TypeError("`finish_reason` is not a text")
        if finish == "function_call" and not self._legacy:
            finish = "tool_calls"
        if parts.finish_reason in (None, "stop"):
            parts.finish_reason = finish
        choice["finish_reason"] = parts.finish_reason

    def _take_delta(self, choice: JsonDict, parts: ChoiceParts, origin: str) -> None:
        delta = choice["delta"]
        plain_content(delta, choice.get("text"))
        if (calls := self._calls_of(delta)) and parts.tool_calls is None:
            parts.tool_calls = ToolCalls(origin)
        if parts.tool_calls is not None:
            pieces = parts.tool_calls.add(calls)
            pieces += parts.tool_calls.end() if choice.get("finish_reason") else []
            delta.pop("tool_calls", None)
            delta |= {"tool_calls": pieces} if pieces and "function_call" not in delta else {}
        merge_delta(parts.message, delta)

    def _canonical_message(self, choice: JsonDict, origin: str) -> JsonDict:
        """The message as it is recorded; also made canonical in place."""
        message: JsonDict = choice["message"]
        plain_content(message, choice.get("text"))
        if not (calls := self._calls_of(message)):
            return dict(message)
        calls = whole_calls(calls, origin)
        if "function_call" not in message:
            message["tool_calls"] = calls
        return {name: value for name, value in message.items() if name != "function_call"} | {"tool_calls": calls}

    def _calls_of(self, message: JsonDict) -> Any:
        """Its tool calls, also if they are a `function_call`, which only a caller who knows no other form keeps."""
        legacy = message.get("function_call")
        if legacy is None or not self._legacy:
            message.pop("function_call", None)
        return message.get("tool_calls") or ([{"index": 0, "function": legacy}] if isinstance(legacy, dict) else [])

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

    @property
    def usage(self) -> Usage:
        """The token counts that the engine sent; those of the token ids where it sent none."""
        return self.counted().model_copy(update=self._said)  # checked when they came

    def counted(self) -> Usage:
        """Token counts from the token ids."""
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
        wrong = torn_counts(self.usage, self.counted())
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


def _count(count: object) -> int:
    """A token count of an engine. Raises ValueError for anything else."""
    if not isinstance(count, int) or not 0 <= count <= MAX_TOKENS:
        raise ValueError(f"{count!r:.64} is no number of tokens")
    return int(count)


def parsed(payload: bytes) -> Any:
    """A server's JSON; also with NaN and infinities, which Python's encoder writes. Raises ValueError."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        if b"NaN" not in payload and b"Infinity" not in payload:
            raise
        try:
            return json.loads(payload)
        except RecursionError as error:
            raise ValueError("nested too deep") from error


def _items(value: object) -> list[Any]:
    """The items of a list; none for null. Anything else is one item, which is neither a token id nor a logprob."""
    return value if isinstance(value, list) else [value] if value else []


def _logprobs(probs: object) -> list[Any]:
    """The logprobs of a choice's tokens, as chat or text completions have them; None for what has none."""
    if not isinstance(probs, dict):
        return [None] if probs else []
    content = [entry.get("logprob") if isinstance(entry, dict) else None for entry in _items(probs.get("content"))]
    return content + _items(probs.get("token_logprobs"))


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


def torn_counts(said: Usage, came: Usage) -> str | None:
    """How the engine's token counts differ from the tokens that came; None if they agree."""
    if said.prompt_tokens != came.prompt_tokens:
        return f"{came.prompt_tokens} prompt_token_ids where usage says {said.prompt_tokens}"
    if said.completion_tokens != came.completion_tokens:
        return f"{came.completion_tokens} token ids where usage says {said.completion_tokens}"
    return None


def merge_delta(message: JsonDict, delta: Mapping[str, Any]) -> None:
    """Add a stream's delta to the message: appends texts. Tool calls are merged by `ToolCalls`."""
    for name, value in delta.items():
        if value is None or name in ("tool_calls", "function_call"):
            continue
        if name != "role" and isinstance(value, str) and isinstance(message.get(name), str):
            message[name] += value
        else:
            message[name] = value


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
        response_id=call.face.response_id(call.chat_id) if reply.began else None,
        project=caller.project,
        key_id=caller.key_id,
        request=call.request,
        sampling=call.prepared.sampling,
        prompt_token_ids=packed_ids(reply.prompt_token_ids),
        unseen=list(call.unseen),
        choices=reply.choices(),
        usage=reply.usage,
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
