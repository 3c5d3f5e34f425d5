"""The MCP conventions: `mcp.method.name` (or `rpc.system` = mcp), with tool values in the GenAI attributes."""

from collections.abc import Sequence

from leyden.events import JsonObject, SpanKind
from leyden.events.tool_results import is_true, reported_error
from leyden.ingest.core import fields
from leyden.ingest.core.dialect import Meaning
from leyden.ingest.core.raw import RawSpan
from leyden.ingest.core.values import mapping, text
from leyden.ingest.dialects import gen_ai, names
from leyden.ingest.dialects.gen_ai import take

METHOD = "mcp.method.name"
_CODES = ("rpc.response.status_code", "rpc.jsonrpc.error_code")
_FLAGS = ("mcp.tool.result.is_error", "mcp.result.is_error", "isError")


class Mcp:
    """Spans of MCP requests, of clients and servers."""

    name = "mcp"

    def recognises(self, span: RawSpan) -> bool:
        return METHOD in span.attributes or span.attributes.get("rpc.system") in ("mcp", "jsonrpc_mcp")

    def meaning(self, span: RawSpan) -> Meaning:
        attributes = span.attributes
        method = text(attributes.get(METHOD)) or text(attributes.get("rpc.method")) or span.name.partition(" ")[0]
        meaning = gen_ai.read(span, SpanKind.TOOL_CALL if method == "tools/call" else SpanKind.OTHER)
        if meaning.tool is not None:
            named = take(meaning, attributes, names.TOOL_NAME, "mcp.tool.name")
            meaning.tool["name"] = named or span.name.removeprefix("tools/call ")
            meaning.tool["type"] = meaning.tool["type"] or "mcp"
            meaning.tool["error"] = _error(attributes, meaning.tool)
        code = next((attributes[name] for name in _CODES if name in attributes), None)
        if isinstance(code, int | str) and not isinstance(code, bool):
            meaning.outcome = fields.outcome(rpc_code=str(code))
        return meaning

    def evaluations(self, span: RawSpan) -> Sequence[tuple[int, JsonObject]]:
        return gen_ai.evaluations(span)


def _error(attributes: JsonObject, tool: JsonObject) -> str | None:
    """The error of a tool whose span has the result's `isError` as an attribute."""
    if not any(is_true(attributes.get(name)) for name in _FLAGS):
        return None
    found = reported_error({**mapping(tool["result"]), "isError": True})
    return found if found != "error" else text(attributes.get("error.type")) or found
