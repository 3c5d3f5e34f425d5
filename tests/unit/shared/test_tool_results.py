"""What a tool's result says of how it ended: by a protocol's field, in words, or nothing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyden.events import Json, JsonObject
from leyden.events.tool_results import reported_error, speaks_of_an_error

TEXT: JsonObject = {"type": "text", "text": "no such city"}
REPORTED: dict[str, Json] = {
    "mcp": {"content": [TEXT], "isError": True},
    "mcp, flag as text": {"content": [TEXT], "isError": "true"},
    "mcp, flag in a block": [{**TEXT, "isError": True}],
    "mcp, in json-rpc": {"jsonrpc": "2.0", "id": 1, "result": {"content": [TEXT], "isError": True}},
    "json-rpc": {"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "away"}},
    "anthropic": [{"type": "tool_result", "tool_use_id": "t", "content": "no such city", "is_error": True}],
    "bedrock": [{"toolResult": {"toolUseId": "t", "status": "error", "content": [{"text": "no such city"}]}}],
    "langchain": {"type": "tool", "data": {"content": "no such city", "tool_call_id": "t", "status": "error"}},
    "langchain, plain": {"content": "no such city", "type": "tool", "tool_call_id": "t", "status": "error"},
    "langchain, dumped": {
        "output": {
            "lc": 1, "type": "constructor", "id": ["langchain_core", "messages", "ToolMessage"],
            "kwargs": {"content": "no such city", "status": "error"},
        }
    },
    "ai sdk": {"type": "error-text", "value": "no such city"},
    "adk": {"result": {"isError": True, "content": [TEXT]}},
    "agentscope": {"content": [TEXT], "state": "error", "metadata": {}, "id": "t"},
    "agentscope, not allowed": {"content": [TEXT], "state": "denied", "metadata": {}, "id": "t"},
}  # fmt: skip
WORDS: list[Json] = [
    {"success": False},
    {"ok": False, "reason": "no such city"},
    {"Success": "False"},
    {"is_success": False},
    {"status": "Error"},
    {"status": "failure"},
    {"status": "FAILED"},
    {"status": "timed_out"},
    {"status": 404},
    {"error": "no such city"},
    {"error": {"code": 7}},
    {"errors": [{"message": "no such city"}]},
    {"errorMessage": "no such city"},
    {"error_code": 7},
    {"exception": "KeyError"},
    {"failed": True},
    {"type": "error", "message": "no such city"},
    {"result": {"success": False}},
    {"content": [{"type": "text", "text": '{"ok": false}'}]},
    {"isError": False, "content": [{"type": "text", "text": "Error: no such city"}]},
    "Error: no such city",
    "error executing tool population: no such city",
    "ERROR: no such city",
    "[Error] no such city",
    "❌ Error: no such city",
    "ValueError: no such city",
    "requests.exceptions.HTTPError: 404",
    "ToolException('no')",
    "KeyError",
    "Exception: no such city",
    "Traceback (most recent call last):\n  File \"x\", line 1\nKeyError: 'x'",
    "before\nTraceback (most recent call last):\n  File \"x\", line 1\nKeyError: 'x'\n",
    "An error occurred while running the tool. Please try again. Error: no such city",
    "Failed to open the file",
    {"output": "Error: no such city"},
    {"result": "Error: no such city"},
    '"Error: no such city"',
    {"status_code": 503, "body": ""},
]
FINE: list[Json] = [
    None, "", "4", 4, True, [], {}, [True], "{broken", "Oslo", {"answer": 4},
    {"errors": []}, {"errors": None}, {"error": None}, {"error": ""}, {"error": False}, {"error": "none"},
    {"errors": {}},
    {"errors": 0}, {"errors": 3}, {"passed": 5, "failed": 2}, {"error_code": 0}, {"errno": 0},
    {"status": "error_free"}, {"status": "no errors"}, {"status": "ok"}, {"status": 200}, {"status": "success"},
    {"success": True}, {"ok": True}, {"success": "true"}, {"isError": False, "content": [TEXT]}, {"isError": "false"},
    {"population": 404}, {"code": 404, "name": "Oslo"}, {"state": "Nevada"}, {"type": "tool_result", "content": "4"},
    "Errors are handled in the gateway.", "Error handling in Rust is explicit.", "There was no error: all is well.",
    "Error: none", "errors: 0", "The log has 3 lines:\nok\nerror: disk full\nok",
    "Exceptions and how to raise them", "Failure is not an option", "failed tests: 0 of 12",
    "log\nTraceback (most recent call last):\n  ...\nKeyError: 'x'\nretried and all is well",
    {"logs": [{"level": "error", "error": "disk full"}]}, [{"error": "disk full"}, {"error": None}],
    {"results": [{"type": "issue", "status": "failed", "text": "Error: x"}]},
    {"title": "Error: a history", "text_of_page": "Error: …"}, {"type": "tool", "status": "success", "content": "4"},
    {"content": [TEXT], "state": "success", "metadata": {}, "id": "t"},
    {"jsonrpc": "2.0", "id": 1, "result": {"isError": False}}, {"exit_code": 0, "stdout": "Error: in the text"},
]  # fmt: skip


@pytest.mark.parametrize("form", REPORTED)
def test_a_protocols_error_is_a_failure(form: str) -> None:
    said = reported_error(REPORTED[form])
    assert said == ("MCP error -32000" if form == "json-rpc" else "no such city")
    assert reported_error(json.dumps(REPORTED[form])) == said
    assert reported_error(json.dumps(json.dumps(REPORTED[form]))) == said


@pytest.mark.parametrize("result", WORDS, ids=str)
def test_words_of_failure_are_no_failure_and_no_success(result: Json) -> None:
    for one in (result, json.dumps(result)):
        assert reported_error(one) is None
        assert speaks_of_an_error(one)


@pytest.mark.parametrize("result", FINE, ids=str)
def test_other_results_say_nothing_of_an_error(result: Json) -> None:
    for one in (result, json.dumps(result)):
        assert reported_error(one) is None
        assert not speaks_of_an_error(one)


WRAPS: list[Any] = [
    lambda result: result,
    json.dumps,
    lambda result: {"result": result},
    lambda result: {"Output": result},
    lambda result: [{"type": "text", "text": json.dumps(result)}],
    lambda result: {"content": [{"type": "text", "text": json.dumps(result)}]},
    lambda result: [{"text": json.dumps(result)}],
]
wrapped = st.lists(st.sampled_from(WRAPS), max_size=2)


@given(st.sampled_from(sorted(REPORTED)), st.lists(st.sampled_from(WRAPS[:4]), max_size=2))
def test_no_envelope_hides_a_protocols_error(form: str, wraps: list[Any]) -> None:
    result = REPORTED[form]
    for wrap in wraps:
        result = wrap(result)
    assert reported_error(result) is not None


@given(st.sampled_from(WORDS), wrapped)
def test_no_envelope_hides_words_of_failure(result: Json, wraps: list[Any]) -> None:
    for wrap in wraps:
        result = wrap(result)
    assert speaks_of_an_error(result)
    assert reported_error(result) is None


@given(st.sampled_from(FINE), wrapped)
def test_no_envelope_makes_an_error_of_what_is_none(result: Json, wraps: list[Any]) -> None:
    for wrap in wraps:
        result = wrap(result)
    assert not speaks_of_an_error(result)
    assert reported_error(result) is None


CASES = st.sampled_from([str.lower, str.upper, str.title, lambda key: key])
KEYS = st.sampled_from(["success", "ok", "is_ok", "succeeded"])
FAILURES = st.sampled_from(
    ["error", "failed", "failure", "fail", "exception", "crashed", "timeout", "Errored", "FATAL"]
)


@given(KEYS, CASES, st.sampled_from([False, "false", "False"]))
def test_a_flag_of_success_that_is_false(key: str, case: Any, value: Json) -> None:
    assert speaks_of_an_error({"city": "Oslo", case(key): value})
    assert not speaks_of_an_error({"city": "Oslo", case(key): True})


@given(
    st.sampled_from(["status", "state", "outcome"]),
    CASES,
    FAILURES,
    st.sampled_from(["_free", "_rate", "less", " count: 0"]),
)
def test_a_status_is_compared_whole(key: str, case: Any, word: str, more: str) -> None:
    assert speaks_of_an_error({case(key): word})
    assert not speaks_of_an_error({case(key): word + more})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(JSON | st.sampled_from(["[" * 5000, '{"a":' * 5000, "9" * 5000, "Error" * 50_000, "\n" * 90_000, "(" * 90_000]))
def test_no_result_raises(result: Any) -> None:
    assert reported_error(result) is None or isinstance(reported_error(result), str)
    assert speaks_of_an_error(result) in (True, False)
    assert reported_error({"isError": True, "content": result}) is not None
