"""The words that Anthropic's messages and chat completions have for the same things: stops, usage, tools, errors."""

from collections.abc import Mapping
from typing import Any

import orjson

from leyden.gateway.core.prepare import JsonDict
from leyden.gateway.core.refusals import Refusal

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
ERRORS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def message_id(engine_id: str) -> str:
    """`msg_…` for the engine's `chatcmpl-…`."""
    return "msg_" + engine_id.removeprefix("chatcmpl-")


def stop_of(choice: Mapping[str, Any], tool_calls: object) -> tuple[str, str | None]:
    """Why a finished choice stopped: `stop_reason` and `stop_sequence`.

    vLLM says in `stop_reason` which stop string was met, and "stop" for a tool call that was demanded by name.
    """
    finish, met = choice.get("finish_reason") or "stop", choice.get("stop_reason")
    if finish == "stop" and tool_calls:
        return "tool_use", None
    if finish == "stop" and isinstance(met, str):
        return "stop_sequence", met
    return STOP_REASONS.get(finish, "end_turn"), None


def usage_of(usage: Mapping[str, Any] | None) -> JsonDict:
    """Token counts; Anthropic's input tokens leave out those that were read from a cache."""
    usage = usage or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": (usage.get("prompt_tokens") or 0) - cached,
        "output_tokens": usage.get("completion_tokens") or 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
    }


def tool_use(call: Mapping[str, Any]) -> JsonDict:
    """A tool call as a block. Arguments that are no JSON object are shown whole, under the one name `arguments`."""
    function = call["function"]
    text = function.get("arguments") or "{}"
    try:
        arguments = orjson.loads(text)
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {"arguments": text}
    return {"type": "tool_use", "id": call.get("id") or "", "name": function.get("name") or "", "input": arguments}


def anthropic_error(refusal: Refusal) -> JsonDict:
    """The body of an error in Anthropic's shape, which has no `param`: the message begins with it."""
    kind = ERRORS.get(refusal.status, "api_error" if refusal.status >= 500 else "invalid_request_error")
    message = f"{refusal.param}: {refusal.message}" if refusal.param else refusal.message
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": refusal.request_id}
