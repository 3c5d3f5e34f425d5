"""Joins spans that have no response id to recorded model calls, by comparing the response itself.

Compared are the content (text, tool calls with their ids), both token counts and the model name; no times. A span that
lacks one of them is not joined, and neither are calls or spans of an attempt if two of them have the same response. One
wrong join is possible: a call that bypassed the gateway and got, from a model of the same name, the same response as a
recorded call whose own span is missing.
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
    """Hashes of the call's response, one for each model name; empty if the call failed or has several choices."""
    if call.error is not None or len(call.choices) != 1:
        return ()
    names = (call.requested_model, call.policy, call.policy_version)
    return replies_of(*names, call.choices[0].message, call.usage.prompt_tokens, call.usage.completion_tokens)


def replies_of(
    asked: str | None, policy: str | None, version: int | None, message: JsonObject, given: int, made: int
) -> tuple[str, ...]:
    """Hashes of a response, one for each name its span may give the model: requested model, policy, policy@version.

    `given` and `made` are the counts of prompt and completion tokens.
    """
    names = {asked, policy, f"{policy}@{version}"} if policy is not None else {asked}
    found = [_reply(name, given, made, [message]) for name in sorted(name for name in names if name)]
    return tuple(reply for reply in found if reply is not None)


def reply_of_span(span: SpanRecorded) -> str | None:
    """Hash of the response in a model call's span; None if the span has a response id or lacks a compared field."""
    llm = span.llm
    if span.kind is not SpanKind.LLM_CALL or llm is None or llm.response_id is not None or not span.model:
        return None
    return _reply(span.model, llm.input_tokens, llm.output_tokens, llm.output_messages)


def same_replies(calls: Mapping[Call, Sequence[str]], spans: Iterable[tuple[Span, str]]) -> dict[Call, Span]:
    """Map each call to the span with the same response, for responses that exactly one call and one span have."""
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
    """Text and tool calls in canonical form; None if the message has neither, or has other content."""
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
    """Canonical JSON: instrumentations re-encode arguments, and some omit an empty object."""
    if value in (None, ""):
        return "{}"
    try:
        found = orjson.loads(value) if isinstance(value, str) else value
        return orjson.dumps(found, option=orjson.OPT_SORT_KEYS).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return str(value)
