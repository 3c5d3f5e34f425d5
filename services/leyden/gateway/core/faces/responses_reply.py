"""Translates a chat reply to a Responses API `response`. All its ids are derived from the chat reply's id."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from leyden.gateway.core.faces.openai import reasoning_of
from leyden.gateway.core.faces.responses_tools import ToolName, custom_input, tools_of
from leyden.gateway.core.request import JsonDict

MARK = "leyden-reasoning-"


def seal(text: str) -> str:
    """The text as `encrypted_content`."""
    return MARK + base64.b64encode(text.encode()).decode()


def unseal(sealed: object) -> str | None:
    """Inverse of `seal`; None for content sealed by another server."""
    if not isinstance(sealed, str) or not sealed.startswith(MARK):
        return None
    try:
        return base64.b64decode(sealed.removeprefix(MARK), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Finish reasons of an incomplete response, and their names in `incomplete_details`."""
ECHOED: JsonDict = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "user": None,
}
"""Fields that a response repeats from its request, with their defaults."""


PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}


def item_id(kind: str, stem: str, index: int) -> str:
    """The id of an output item of a kind, by its index in the output."""
    return f"{PREFIXES[kind]}_{stem}_{index}"


def stem_of(chat_id: object) -> str:
    """The common part of all ids of a response."""
    return str(chat_id or "").removeprefix("chatcmpl-")


def response_id(chat_id: object) -> str:
    """The response's id, derived from the chat reply's."""
    return f"resp_{stem_of(chat_id)}"


def envelope(chat: Mapping[str, Any], body: JsonDict) -> JsonDict:
    """A response without output, from a chat reply or a stream's first chunk."""
    given = {name: body[name] for name in ECHOED if body.get(name) is not None}
    return {
        "id": response_id(chat.get("id")),
        "object": "response",
        "created_at": chat.get("created") or 0,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": chat.get("model"),
        "output": [],
        "previous_response_id": body.get("previous_response_id"),
        "store": False,
        "truncation": "disabled",
        "usage": None,
        **ECHOED,
        **given,
    }


def response(chat: Mapping[str, Any], body: JsonDict) -> JsonDict:
    """The response for a complete chat reply."""
    choice = chat["choices"][0]
    output = items(stem_of(chat.get("id")), choice.get("message") or {}, choice.get("logprobs"), tools_of(body).names)
    return ended(envelope(chat, body), output, choice.get("finish_reason"), chat.get("usage"))


def ended(opened: JsonDict, output: list[JsonDict], finish_reason: str | None, usage: object) -> JsonDict:
    """`opened` with its output; the last item of a truncated reply is incomplete."""
    reason = INCOMPLETE.get(finish_reason or "")
    if reason and output:
        output[-1] = output[-1] | {"status": "incomplete"}
    return opened | {
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": usage_of(usage),
    }


def items(stem: str, message: Mapping[str, Any], logprobs: object, names: Mapping[str, ToolName]) -> list[JsonDict]:
    """The output items of a chat message: reasoning, the message, calls of the request's tools."""
    output: list[JsonDict] = []
    if thought := reasoning_of(message):
        output.append(reasoning_item(stem, len(output), thought, "completed"))
    calls = message.get("tool_calls") or ()
    text, refusal = message.get("content"), message.get("refusal")
    if text or refusal or not calls:
        parts = [text_part(text, logprobs_of(logprobs))] if text or not refusal else []
        parts += [{"type": "refusal", "refusal": refusal}] if refusal else []
        output.append(message_item(stem, len(output), parts, "completed"))
    for call in calls:
        function = call.get("function") or {}
        called = function.get("name") or ""
        name, arguments = names.get(called, ToolName(called)), function.get("arguments") or ""
        output.append(
            call_item(
                stem=stem, index=len(output), call_id=call.get("id"), name=name, arguments=arguments, status="completed"
            )
        )
    return output


def reasoning_item(stem: str, index: int, text: str | None, status: str) -> JsonDict:
    """A reasoning item; `text` is None before there is any."""
    content = [] if text is None else [reasoning_part(text)]
    item: JsonDict = {"id": item_id("reasoning", stem, index), "type": "reasoning", "summary": [], "content": content}
    return item | {"encrypted_content": seal(text) if text and status != "in_progress" else None, "status": status}


def message_item(stem: str, index: int, parts: list[JsonDict], status: str) -> JsonDict:
    """An assistant message."""
    item = {"id": item_id("message", stem, index), "type": "message", "status": status}
    return item | {"role": "assistant", "content": parts}


def call_item(stem: str, index: int, call_id: str | None, name: ToolName, arguments: str, status: str) -> JsonDict:
    """A call of a tool; its `call_id` is the chat tool call's id, to which the caller's result refers."""
    kind = "custom_tool_call" if name.custom else "function_call"
    own_id = item_id(kind, stem, index)
    call: JsonDict = {"id": own_id, "type": kind, "status": status, "call_id": call_id or own_id, "name": name.name}
    call |= {} if name.namespace is None else {"namespace": name.namespace}
    return call | ({"input": custom_input(arguments)} if name.custom else {"arguments": arguments})


def text_part(text: str | None, logprobs: list[JsonDict]) -> JsonDict:
    """A part of a message."""
    return {"type": "output_text", "text": text or "", "annotations": [], "logprobs": logprobs}


def reasoning_part(text: str) -> JsonDict:
    """A part of a reasoning item."""
    return {"type": "reasoning_text", "text": text}


def logprobs_of(logprobs: object) -> list[JsonDict]:
    """A chat choice's logprobs in an output text's form; none unless the caller asked for them."""
    entries = (logprobs.get("content") or ()) if isinstance(logprobs, Mapping) else ()
    return [
        _logprob(entry) | {"top_logprobs": [_logprob(t) for t in entry.get("top_logprobs") or ()]} for entry in entries
    ]


def _logprob(entry: Mapping[str, Any]) -> JsonDict:
    token = entry["token"]
    spelt = entry.get("bytes")
    return {
        "token": token,
        "bytes": list(token.encode("utf-8", "replace")) if spelt is None else spelt,
        "logprob": entry["logprob"],
    }


def usage_of(usage: object) -> JsonDict | None:
    """Token counts under the Responses API's names."""
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    read = usage.get("prompt_tokens_details") or {}
    written = usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": read.get("cached_tokens") or 0, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": written.get("reasoning_tokens") or 0},
        "total_tokens": prompt + completion,
    }
