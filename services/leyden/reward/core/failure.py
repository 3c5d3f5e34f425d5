"""Detects whether a tool call succeeded or failed, and how, from what instrumentations write to its spans."""

from collections.abc import Iterable, Sequence

from leyden.events import Json, JsonObject, SpanRecorded
from leyden.events.masked import has_mask
from leyden.events.tool_results import is_true, reported_error, speaks_of_an_error
from leyden.reward.core.json_values import parsed

EXIT_CODES = ("process.exit.code", "process.exit_code", "exit.code", "exit_code", "exitCode", "returncode")
"""Names of exit codes in attributes, and at the top level of a tool's result."""
HTTP_STATUSES = ("http.response.status_code", "http.status_code")
RPC_CODES = ("rpc.response.status_code", "rpc.jsonrpc.error_code")
"""Set on MCP spans if the request failed: the conventions' new name and the old one."""
TOOL_STATUS = "gen_ai.tool.status"
"""`success` or `error`, from Strands."""
MCP_METHOD = "mcp.method.name"
IS_ERROR = ("isError", "is_error", "mcp.tool.result.is_error", "mcp.result.is_error")
"""`CallToolResult.isError` of MCP, in a result or as an attribute."""


SUCCESS = ""
"""Outcome of a tool call that succeeded; any other text says how it failed."""


def outcome_of(span: SpanRecorded, parts: Sequence[SpanRecorded] = (), answer: JsonObject | None = None) -> str | None:
    """`SUCCESS`, or a description of how the tool call failed, equal for equal errors; None if the spans do not say.

    The tool's own span decides first. An exit code, an HTTP status or an MCP error in it counts whatever the status is,
    because most instrumentations set OK for everything that did not raise. An exception counts unless the status is OK,
    which means that it was handled. If the span has none of these, the last of `parts` (spans of the tool's own work)
    that has one decides, because a retried request may succeed, and then `answer`: the message with the result in a
    later request. If none has, a result that is there and not masked means success: a span that only ended is no
    evidence of it. A result or an `answer` in whose words the tool failed (`{"success": false}`) is no success,
    whatever else is, and no failure either.
    """
    found = _said(span)
    if found is None:
        by_end = sorted(parts, key=lambda part: (part.end_unix_nano, part.span_id), reverse=True)
        found = next((said for part in by_end if (said := _said(part)) is not None), None)
    if not found and answer is not None and (said := reported_error({"role": "tool", **answer})) is not None:
        return f"tool error {said}"
    if found:
        return found
    results = [one.tool.result for one in (span, *parts) if one.tool is not None and one.tool.result is not None]
    words = [*results, answer.get("content")] if answer is not None else results
    if any(map(speaks_of_an_error, words)):
        return None
    return found if found is not None else SUCCESS if any(not has_mask(result) for result in results) else None


def _said(span: SpanRecorded) -> str | None:
    """How the span failed; `SUCCESS` if it did not; None if the span does not say."""
    if span.tool is not None and span.tool.error is not None:
        return f"tool error {span.tool.error}".rstrip()
    reported = [*_reported(span.attributes), *_reported_in(span.tool.result if span.tool else None)]
    if failed := [how for how in reported if how]:
        return f"{failed[0]}: {span.error_message or ''}".rstrip(": ")
    if span.status == "error" or (span.status == "unset" and (span.error_type or _raised(span))):
        kind = span.error_type or _raised(span) or "error"
        return f"{kind}: {span.error_message or ''}".rstrip(": ")
    return SUCCESS if span.status == "ok" or reported else None


def _reported(attributes: dict[str, Json]) -> Iterable[str]:
    """The results reported by a span's attributes, one text each; "" for success."""
    for key in EXIT_CODES:
        if (code := _integer(attributes.get(key))) is not None:
            yield f"exit code {code}" if code else ""
    for key in HTTP_STATUSES:
        if (status := _integer(attributes.get(key))) is not None:
            yield f"HTTP {status}" if status >= 400 else ""
    for key in RPC_CODES if MCP_METHOD in attributes else ():
        if (code := _integer(attributes.get(key))) is not None:
            yield f"MCP error {code}" if code else ""
    if attributes.get(TOOL_STATUS) == "success":
        yield ""
    elif attributes.get(TOOL_STATUS) == "error":
        yield "tool error"
    yield from _is_error(attributes)


def _reported_in(result: Json) -> Iterable[str]:
    """The results reported in a tool's result: an exit code, MCP's `isError`, a JSON-RPC error, a message's status."""
    if (error := reported_error(result)) is not None:
        yield f"tool error {error}"
    body = parsed(result)[1] if isinstance(result, str) else result
    if not isinstance(body, dict):
        return
    for key in EXIT_CODES:
        if (code := _integer(body.get(key))) is not None:
            yield f"exit code {code}" if code else ""
    if "jsonrpc" in body and not isinstance(body.get("error"), dict):
        yield ""
    yield from _is_error(body)


def _is_error(values: dict[str, Json]) -> Iterable[str]:
    for key in IS_ERROR:
        if is_true(flag := values.get(key)):
            yield "tool error"
        elif flag is False:
            yield ""


def _raised(span: SpanRecorded) -> str | None:
    """The type of the exception in a span event or an attribute."""
    named = span.attributes.get("exception.type")
    events = span.attributes.get("otel.events")
    for event in reversed(events) if isinstance(events, list) else ():
        if named is None and isinstance(event, dict) and event.get("name") == "exception":
            inside = event.get("attributes")
            named = (inside.get("exception.type") if isinstance(inside, dict) else None) or "exception"
    return str(named) if named else None


def _integer(value: Json) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return int(value)
    except (ValueError, OverflowError):
        return None
