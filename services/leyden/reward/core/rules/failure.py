"""Detects whether a tool call succeeded or failed, and how, from what instrumentations write to its spans."""

from collections.abc import Iterable, Sequence

from leyden.events import Json, SpanRecorded
from leyden.events.masked import has_mask
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


def outcome_of(span: SpanRecorded, parts: Sequence[SpanRecorded] = ()) -> str | None:
    """`SUCCESS`, or a description of how the tool call failed, equal for equal errors; None if the spans do not say.

    The tool's own span decides first. An exit code, an HTTP status or an MCP error in it counts whatever the status is,
    because most instrumentations set OK for everything that did not raise. An exception counts unless the status is OK,
    which means that it was handled. If the span has none of these, the last of `parts` (spans of the tool's own work)
    that has one decides, because a retried request may succeed. If none has, a result that is there and not masked
    means success: a span that only ended is no evidence of it.
    """
    if (found := _said(span)) is not None:
        return found
    said = (_said(part) for part in sorted(parts, key=lambda part: (part.end_unix_nano, part.span_id), reverse=True))
    if (found := next((found for found in said if found is not None), None)) is not None:
        return found
    return SUCCESS if any(_has_result(one) for one in (span, *parts)) else None


def _has_result(span: SpanRecorded) -> bool:
    """Whether the tool's result is there: not masked, and no object that speaks of an error itself."""
    result = span.tool.result if span.tool else None
    if result is None or has_mask(result):
        return False
    body = parsed(result)[1] if isinstance(result, str) else result
    return not (isinstance(body, dict) and (body.get("error") or body.get("status") in ("error", "failed")))


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
    """The results reported in a tool's result: an exit code, MCP's `isError`, a JSON-RPC error."""
    body = parsed(result)[1] if isinstance(result, str) else result
    if not isinstance(body, dict):
        return
    for key in EXIT_CODES:
        if (code := _integer(body.get(key))) is not None:
            yield f"exit code {code}" if code else ""
    if "jsonrpc" in body:
        error = body.get("error")
        yield f"MCP error {error.get('code')}" if isinstance(error, dict) else ""
        inner = body.get("result")
        yield from _is_error(inner) if isinstance(inner, dict) else ()
    yield from _is_error(body)


def _is_error(values: dict[str, Json]) -> Iterable[str]:
    for key in IS_ERROR:
        if isinstance(flag := values.get(key), bool):
            yield f"MCP tool error {_text_of(values)}".rstrip() if flag else ""


def _text_of(result: dict[str, Json]) -> str:
    """The text of an MCP result, so that different errors have different descriptions."""
    content = result.get("content")
    texts = [item.get("text") for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    return " ".join(text for text in texts if isinstance(text, str))


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
