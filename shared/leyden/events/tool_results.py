"""Reads from a tool's result whether the tool failed. A failed tool usually returns a result all the same.

Protocols have a field for it: MCP's `isError`, Anthropic's `is_error`, the status of Bedrock's and LangChain's tool
messages, the state of AgentScope's, the AI SDK's error types, JSON-RPC's error object. That is evidence of a failure.
Tools also say it in words of their own (`{"success": false}`, "Error: no such file"), but the same words may be a good
answer (the status of a job that was looked up), so words are evidence of neither a failure nor a success.
"""

import re
from collections.abc import Iterator, Mapping

import orjson

from leyden.events.base import Json, JsonObject

_FLAGS = ("isError", "is_error", "iserror")
_TRUE = frozenset({"true", "1", "yes"})
_ENVELOPES = frozenset(
    {"result", "results", "output", "response", "data", "toolresult", "content", "structuredcontent"}
)
"""Keys, folded, whose value may be the result proper."""
_BLOCK_TYPES = frozenset({
    "text", "image", "audio", "document", "resource", "resource_link", "search_result", "json", "content",
    "tool_result", "tool-result", "tool-error", "error-text", "error-json",
})  # fmt: skip
_MAX_ENVELOPES = 8
_MAX_ITEMS = 64
_STATUS_KEYS = frozenset({"status", "state", "outcome", "resultstatus", "type"})
_FAILED = frozenset({
    "error", "errors", "errored", "err", "fail", "failed", "failure", "exception", "fatal", "crashed", "crash",
    "aborted", "timeout", "timedout",
})  # fmt: skip
_ERROR_KEYS = frozenset({
    "error", "errors", "err", "exception", "exceptions", "traceback", "stacktrace", "errormessage", "errormsg",
    "errorcode", "errortype", "errno", "failure", "failed",
})  # fmt: skip
_NUMBERED = frozenset({"errorcode", "errno"})
_SUCCESS_KEYS = frozenset({"success", "succeeded", "successful", "issuccess", "ok", "isok"})
_HTTP_KEYS = frozenset({"status", "statuscode", "httpstatus", "httpstatuscode"})
_NO_ERROR = frozenset({"", "none", "no", "null", "nil", "false", "0", "ok", "noerror", "noerrors", "success", "na"})
_AGENTSCOPE = frozenset({"content", "state", "metadata", "id"})
"""Fields of AgentScope's `ToolResponse`."""
_AGENTSCOPE_FAILED = ("error", "denied", "interrupted")
_TEXT = re.compile(
    r"\W{0,4}(?:[\w.]*(?:Error|Exception)(?:\([^)\n]{0,200}\))?\s*(?::|!|\(|$)"
    r"|(?i:(?:fatal |internal |unexpected |tool |server |runtime )?(?:error|exception|failure|failed|fatal)\s*[:!\]]"
    r"|error (?:executing|invoking|calling|running|while|during|in|from|occurred)\b"
    r"|an? (?:\w+ )?error (?:has )?occurr?ed|failed to \w|tool (?:call |execution )?failed))"
)
_TRACEBACK = re.compile(r"^\s*Traceback \(most recent call last\)", re.MULTILINE)
_TRACEBACK_CHARS = 65_536
_NOTHING_AFTER = re.compile(r"\W*\w+\s*[:!\]]\s*(?:none|no|null|0|nothing)?\W*", re.IGNORECASE)


def reported_error(result: Json) -> str | None:
    """How the tool failed, as a protocol's field in its result says; None where none says so."""
    for body in _bodies(result):
        if (said := _protocol(body)) is not None:
            return said
    return None


def speaks_of_an_error(result: Json) -> bool:
    """Whether the result has words of failure, so that it is no evidence of a success."""
    for body in _bodies(result):
        if isinstance(body, str) and _is_error_text(body):
            return True
        if isinstance(body, Mapping) and any(_is_error_field(_folded(key), value) for key, value in body.items()):
            return True
    return False


def _bodies(result: Json, depth: int = 0) -> Iterator[Json]:
    """The result, decoded, and what is inside its envelopes: those of protocols and frameworks, or content blocks."""
    value = _decoded(result)
    if isinstance(value, list):
        if value and all(isinstance(item, dict) and _is_block(item) for item in value[:_MAX_ITEMS]):
            for item in value[:_MAX_ITEMS]:
                yield from _bodies(item, depth)
        return
    yield value
    if isinstance(value, dict) and depth < _MAX_ENVELOPES:
        for key, inner in value.items():
            if key in ("kwargs", "data") and _is_message(value) and isinstance(inner, dict):
                yield from _bodies({"role": "tool", **inner}, depth + 1)
            elif _folded(key) in _ENVELOPES:
                yield from _bodies(inner, depth + 1)
        if value.get("type", "text") == "text" and isinstance(said := value.get("text"), str):
            yield from _bodies(said, depth + 1)


def _is_block(item: JsonObject) -> bool:
    """Whether it is a content block, of MCP, Anthropic, Bedrock or the AI SDK, rather than a row of the tool's data."""
    return "toolResult" in item or item.get("type") in _BLOCK_TYPES or item.keys() in ({"text"}, {"json"})


def _is_message(value: JsonObject) -> bool:
    return value.get("type") in ("tool", "constructor") or "lc" in value


def _protocol(body: Json) -> str | None:
    if not isinstance(body, dict):
        return None
    if any(is_true(body.get(flag)) for flag in _FLAGS):
        return words_of(body) or "error"
    if body.get("type") in ("error-text", "error-json", "tool-error"):
        return words_of(body) or "error"
    is_message = body.get("role") == "tool" or "tool_call_id" in body or "toolUseId" in body
    if (is_message or body.get("type") == "tool") and body.get("status") == "error":
        return words_of(body) or "error"
    if body.keys() >= _AGENTSCOPE and body["state"] in _AGENTSCOPE_FAILED:
        return words_of(body) or str(body["state"])
    if "jsonrpc" in body and isinstance(error := body.get("error"), dict):
        return f"MCP error {error.get('code')}"
    return None


def is_true(flag: Json) -> bool:
    """Whether a flag is set: as a truth value, or as its text."""
    return flag is True or flag == 1 or (isinstance(flag, str) and flag.strip().casefold() in _TRUE)


def words_of(body: JsonObject) -> str:
    """The text of a result: of its content blocks, its value, or its error."""
    found = [body.get(key) for key in ("text", "value", "content", "error", "message", "result")]
    texts: list[str] = []
    for value in found:
        for item in value if isinstance(value, list) else [value]:
            said = item.get("text") if isinstance(item, dict) else item
            texts += [said] if isinstance(said, str) and said else []
    return "\n".join(texts)


def _is_error_field(key: str, value: Json) -> bool:
    if key in _SUCCESS_KEYS:
        return value is False or (isinstance(value, str) and _folded(value) in ("false", "no"))
    if key in _STATUS_KEYS and isinstance(value, str):
        return _folded(value) in (_FAILED if key != "type" else {"error"})
    if key in _ERROR_KEYS:
        return _says_something(value, key in _NUMBERED)
    return key in _HTTP_KEYS and isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600


def _says_something(value: Json, numbered: bool) -> bool:
    """Whether the value of an error's field is an error: not empty, not false, no word for none. A number is a count,
    except in fields for codes.
    """
    if isinstance(value, str):
        return _folded(value) not in _NO_ERROR
    if isinstance(value, int | float) and not isinstance(value, bool):
        return numbered and value != 0
    return bool(value)


def _is_error_text(text: str) -> bool:
    start = text.lstrip()[:400]
    if (found := _TEXT.match(start)) is not None:
        line = start.partition("\n")[0]
        return _NOTHING_AFTER.fullmatch(line) is None or found.end() >= len(start.rstrip())
    last = text.rstrip().rpartition("\n")[2]
    found = _TRACEBACK.search(text[-_TRACEBACK_CHARS:])
    return found is not None and (found.start() == 0 or _TEXT.match(last) is not None)


def _decoded(value: Json) -> Json:
    for _ in range(2):  # some instrumentations encode an encoded text
        if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "[", '"'):
            return value
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def _folded(key: str) -> str:
    """Without case, underscores and the like: `errorMessage` and `error_message` are one name."""
    return "".join(filter(str.isalnum, key.casefold()))
