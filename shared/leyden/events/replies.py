"""Which model call a span is about that does not name its reply: the one with the same reply, where there is one.

A reply is what was said (text, tool calls with their ids), the two counts of tokens and the model's name: all of it is
in the reply itself, none of it is a time. Nothing is guessed: a span without one of them has no reply here, and a reply
that two calls or two spans of an attempt have joins none of them. What this cannot see is a call that went round the
gateway and was answered, by a model of the same name, just as a recorded call whose own span is missing.
"""

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import orjson

from leyden.events.base import Json, JsonObject
from leyden.events.calls import ModelCallRecorded
from leyden.events.spans import SpanKind, SpanRecorded
from leyden.ids import derive

Call = TypeVar("Call", bound=Hashable)
Span = TypeVar("Span")


def replies_of_call(call: ModelCallRecorded) -> tuple[str, ...]:
    """The replies that a span of the call may tell of; none of a call that failed or was answered several times."""
    if call.error is not None or len(call.choices) != 1:
        return ()
    names = (call.requested_model, call.policy, call.policy_version)
    return replies_of(*names, call.choices[0].message, call.usage.prompt_tokens, call.usage.completion_tokens)


def replies_of(
    asked: str | None, policy: str | None, version: int | None, message: JsonObject, given: int, made: int
) -> tuple[str, ...]:
    """A reply under each name that its model may go by: as it was asked for, the policy, its version."""
    names = {asked, policy, f"{policy}@{version}"} if policy is not None else {asked}
    found = [_reply(name, given, made, [message]) for name in sorted(name for name in names if name)]
    return tuple(reply for reply in found if reply is not None)


def reply_of_span(span: SpanRecorded) -> str | None:
    """The reply that a model call's span tells of; None where it names it, or does not tell all of it."""
    llm = span.llm
    if span.kind is not SpanKind.LLM_CALL or llm is None or llm.response_id is not None or not span.model:
        return None
    return _reply(span.model, llm.input_tokens, llm.output_tokens, llm.output_messages)


def same_replies(calls: Mapping[Call, Sequence[str]], spans: Iterable[tuple[Span, str]]) -> dict[Call, Span]:
    """Call → the span with its reply, for the replies that one call and one span have."""
    told = list(spans)
    in_spans = Counter(reply for _, reply in told)
    in_calls = Counter(reply for replies in calls.values() for reply in replies)
    alone = {reply: span for span, reply in told if in_spans[reply] == 1 and in_calls[reply] == 1}
    found = {call: [alone[reply] for reply in replies if reply in alone] for call, replies in calls.items()}
    return {call: joined[0] for call, joined in found.items() if len(joined) == 1}


def _reply(model: str, given: int | None, made: int | None, messages: Sequence[JsonObject]) -> str | None:
    said = _said(messages[0]) if len(messages) == 1 else None
    if given is None or made is None or said is None:
        return None
    return derive("reply", json.dumps([model, given, made, said]))


def _said(message: JsonObject) -> list[Json] | None:
    """Text and tool calls in one spelling; None where there is neither, or something else beside."""
    content, asked = message.get("content") or "", message.get("tool_calls") or []
    calls = [_asked(item) for item in asked] if isinstance(asked, list) else [None]
    if not isinstance(content, str) or None in calls or not (content or calls):
        return None
    return [content, *calls]


def _asked(item: Json) -> Json:
    function = item.get("function") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(function, dict):
        return None
    id_, name = item.get("id"), function.get("name")
    if not isinstance(id_, str) or not isinstance(name, str):
        return None
    return [id_, name, _arguments(function.get("arguments"))]


def _arguments(value: Json) -> str:
    """Instrumentations write the JSON anew, and some leave an empty object out."""
    if value in (None, ""):
        return "{}"
    try:
        found = orjson.loads(value) if isinstance(value, str) else value
        return orjson.dumps(found, option=orjson.OPT_SORT_KEYS).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return str(value)
