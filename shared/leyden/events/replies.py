"""Hashes by which a span's reply is recognised as a recorded call's, where the span does not have the response id.

A reply is recognised by its tool calls (ids, names, arguments) with the model's name, where the span has one; by the
ids of tool calls alone if they are random; and otherwise by its text with both token counts and the model's name, or
without the counts where the span has none and the text is long. A provider's prefix of a name (`openai/policy`) is not
compared. Equal hashes are not enough to join: see `joins`.
"""

import json
import re

import orjson

from leyden.events.base import Json, JsonObject
from leyden.events.calls import ModelCallRecorded
from leyden.events.spans import SpanKind, SpanRecorded
from leyden.ids import derive

LONG_TEXT = 40
"""Characters of a text from which on it tells the reply of a span without token counts, such as DSPy's."""
_RANDOM = re.compile(r"(?=(?:.*[0-9]){2})(?=(?:.*[A-Za-z]){2})[A-Za-z0-9]{8,}")
"""The last part of an id that is taken to be random: many engines count, as in `call_00000001` or `search:0`."""
_PARTS = re.compile(r"[^A-Za-z0-9]+")


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
    names = sorted(call_names(asked, policy, version))
    found = [reply for name in [None, *names] for reply in _by_tool_calls(name, message)]
    texts = [_reply(name, given, made, message) for name in [None, *names]]
    texts += [_long_reply(name, message) for name in names]
    return tuple(dict.fromkeys(reply for reply in [*found, *texts] if reply is not None))


def call_names(asked: str | None, policy: str | None, version: int | None) -> frozenset[str]:
    """The names under which a span may have the model: as requested, the policy, policy@version; without prefixes."""
    names = {asked, policy, f"{policy}@{version}"} if policy is not None else {asked}
    return frozenset(plain_name(name) for name in names if name)


def replies_of_span(span: SpanRecorded) -> tuple[str, ...]:
    """Hashes of the reply in a model call's span, or in a log record of one; empty if neither text nor ids tell it.

    A span with a response id of its own is recognised by tool calls alone.
    """
    llm = span.llm
    if llm is None or len(llm.output_messages) != 1 or not (span.kind is SpanKind.LLM_CALL or span.derived):
        return ()
    message = llm.output_messages[0]
    model = plain_name(span.model) if span.model else None
    found = _by_tool_calls(model, message)
    if llm.response_id is None and (span.model or span.derived):
        counted = llm.input_tokens is not None or llm.output_tokens is not None
        reply = _reply(model, llm.input_tokens, llm.output_tokens, message)
        reply = reply if counted or model is None else _long_reply(model, message)
        return (*found, reply) if reply is not None else found
    return found


def plain_name(name: str) -> str:
    """The model's name without a provider's prefix, and without Mirascope's word for the API."""
    plain = name.rpartition("/")[2] or name
    return plain.removesuffix(":completions").removesuffix(":responses")


def _reply(model: str | None, given: int | None, made: int | None, message: JsonObject) -> str | None:
    said = _said(message)
    if given is None or made is None or said is None:
        return None
    return derive("reply", json.dumps([model, given, made, said]))


def _long_reply(model: str, message: JsonObject) -> str | None:
    content = message.get("content")
    is_long = isinstance(content, str) and len(content) >= LONG_TEXT
    return derive("long-reply", json.dumps([model, _said(message)])) if is_long else None


def _by_tool_calls(model: str | None, message: JsonObject) -> tuple[str, ...]:
    """Hashes of the tool calls: whole, and by ids alone if these are random."""
    asked = message.get("tool_calls") or []
    calls = [_asked(item) for item in asked] if isinstance(asked, list) else []
    if not calls or None in calls:
        return ()
    ids = sorted(str(call[0]) for call in calls if isinstance(call, list))
    whole = derive("tool-calls", json.dumps([model, calls]))
    return (whole, derive("tool-call-ids", json.dumps(ids))) if all(map(is_random, ids)) else (whole,)


def is_random(id_: str) -> bool:
    """Whether an id is taken to be unique: its last part is long, with digits and letters."""
    return _RANDOM.fullmatch(_PARTS.split(id_.rstrip("=_-"))[-1]) is not None


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
