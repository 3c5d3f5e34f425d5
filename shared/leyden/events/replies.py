"""Joins spans to recorded model calls by the reply, for spans that do not have the call's response id.

A reply is recognised by its tool calls (ids, names, arguments), which need nothing else; by ids of tool calls alone if
they are long enough to be unique; and otherwise by its text with both token counts and the model's name, or without the
counts where the span has none and the text is long. A provider's prefix of a name (`openai/policy`) is not compared. No
times. Neither calls nor spans of an attempt are joined if two of them have the same reply, except spans inside each
other. One wrong join is possible: a call that bypassed the gateway and got the same reply as a recorded call whose own
span is missing.
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
Span = TypeVar("Span", bound=Hashable)
LONG_TEXT = 40
"""Characters of a text from which on it tells the reply of a span without token counts, such as DSPy's."""
LONG_ID = 12
"""Characters of a tool call's id from which on it is taken to be unique; some engines count `call_0`, `call_1`."""


def replies_of_call(call: ModelCallRecorded) -> tuple[str, ...]:
    """Hashes of the call's reply, for `same_replies`; empty if the call failed or has several choices."""
    if call.error is not None or len(call.choices) != 1:
        return ()
    names = (call.requested_model, call.policy, call.policy_version)
    return replies_of(*names, call.choices[0].message, call.usage.prompt_tokens, call.usage.completion_tokens)


def replies_of(
    asked: str | None, policy: str | None, version: int | None, message: JsonObject, given: int, made: int
) -> tuple[str, ...]:
    """Hashes of a reply: by its tool calls, and one for each name its span may give the model, or none.

    The names are the requested model, the policy and policy@version; `given` and `made` are the counts of prompt and
    completion tokens.
    """
    names = {asked, policy, f"{policy}@{version}"} if policy is not None else {asked}
    plain = sorted({_plain(name) for name in names if name})
    found = [*_by_tool_calls(message), *(_reply(name, given, made, message) for name in [None, *plain])]
    found += [_long_reply(name, message) for name in plain]
    return tuple(reply for reply in found if reply is not None)


def replies_of_span(span: SpanRecorded) -> tuple[str, ...]:
    """Hashes of the reply in a model call's span, or in a log record of one; empty if neither text nor ids tell it.

    A span with a response id of its own is recognised by tool calls alone.
    """
    llm = span.llm
    if llm is None or len(llm.output_messages) != 1 or not (span.kind is SpanKind.LLM_CALL or span.derived):
        return ()
    message = llm.output_messages[0]
    found = _by_tool_calls(message)
    if llm.response_id is None and (span.model or span.derived):
        model = _plain(span.model) if span.model else None
        counted = llm.input_tokens is not None or llm.output_tokens is not None
        reply = _reply(model, llm.input_tokens, llm.output_tokens, message)
        reply = reply if counted or model is None else _long_reply(model, message)
        return (*found, reply) if reply is not None else found
    return found


def told_by(span: SpanRecorded) -> tuple[str, str]:
    """(Trace id, span id) of the span that a reply belongs to: for a log record's, the span that it names."""
    return span.trace_id, (span.parent_span_id if span.derived else None) or span.span_id


def same_replies(
    calls: Mapping[Call, Sequence[str]],
    spans: Iterable[tuple[Span, Sequence[str]]],
    parents: Mapping[Span, Span] | None = None,
) -> dict[Call, Span]:
    """Map each call to the span with the same reply, for replies that exactly one call and one span have.

    Of spans inside each other with one reply, the innermost counts. A call that fits two spans is not joined.
    """
    told = _innermost({(span, reply) for span, replies in spans for reply in replies}, parents or {})
    in_spans = Counter(reply for _, reply in told)
    in_calls = Counter(reply for replies in calls.values() for reply in set(replies))
    alone = {reply: span for span, reply in told if in_spans[reply] == 1 and in_calls[reply] == 1}
    found = {call: {alone[reply] for reply in replies if reply in alone} for call, replies in calls.items()}
    joined = {call: next(iter(fitting)) for call, fitting in found.items() if len(fitting) == 1}
    times = Counter(joined.values())
    return {call: span for call, span in joined.items() if times[span] == 1}


def _innermost(told: set[tuple[Span, str]], parents: Mapping[Span, Span]) -> set[tuple[Span, str]]:
    """`told` without spans inside which another one tells the same reply."""
    outer: set[tuple[Span, str]] = set()
    for span, reply in told:
        seen = {span}
        at = parents.get(span)
        while at is not None and at not in seen:
            seen.add(at)
            if (at, reply) in told:
                outer.add((at, reply))
            at = parents.get(at)
    return told - outer


def _plain(name: str) -> str:
    """The model's name without a provider's prefix."""
    return name.rpartition("/")[2] or name


def _reply(model: str | None, given: int | None, made: int | None, message: JsonObject) -> str | None:
    said = _said(message)
    if given is None or made is None or said is None:
        return None
    return derive("reply", json.dumps([model, given, made, said]))


def _long_reply(model: str, message: JsonObject) -> str | None:
    content = message.get("content")
    is_long = isinstance(content, str) and len(content) >= LONG_TEXT
    return derive("long-reply", json.dumps([model, _said(message)])) if is_long else None


def _by_tool_calls(message: JsonObject) -> tuple[str, ...]:
    """Hashes of the tool calls: whole, and by ids alone if these are unique."""
    asked = message.get("tool_calls") or []
    calls = [_asked(item) for item in asked] if isinstance(asked, list) else []
    if not calls or None in calls:
        return ()
    ids = sorted(str(call[0]) for call in calls if isinstance(call, list))
    whole = derive("tool-calls", json.dumps(calls))
    return (whole, derive("tool-call-ids", json.dumps(ids))) if min(map(len, ids)) >= LONG_ID else (whole,)


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
