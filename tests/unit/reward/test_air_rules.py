"""What the rules of Automatic Intermediate Rewarding see, each in evidence as instrumentations write it."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given as given_by
from hypothesis import settings
from hypothesis import strategies as st
from pydantic import ValidationError

from leyden.events import Evaluation, Event, Json, JsonObject, RewardAssigned, SpanKind, SpanRecorded, ToolCall, Usage
from leyden.reward.core.assess import Rulebook
from leyden.reward.core.late import opened, revise
from leyden.reward.core.rules import (
    Budget,
    Emitted,
    HumanFeedback,
    IntermediateRule,
    ParseableOutput,
    RepeatedCall,
    Retrieval,
    SchemaValidArguments,
    SelfCorrection,
    Shaping,
    ToolStatus,
)
from unit.reward.reward_builders import ROLLOUT, T0, a_call, a_span, an_end, asking, judged


def given(rule: IntermediateRule, *events: Event) -> list[tuple[float, str, str | None]]:
    """(Value, last characters of the evidence, call) of what the rule gave; it did not fail."""
    result = judged([rule], *events)
    assert result.completed.failed_rules == []
    assert {(r.rule, r.name) for r in result.rewards} <= {(rule.name, rule.signal or rule.name)}
    return [(round(r.value, 9), shown(r), r.call_id) for r in result.rewards]


def shown(reward: RewardAssigned) -> str:
    spans = {a_span(n, 0).event_id: f"span-{n}" for n in range(1, 20)}
    return spans.get(reward.evidence.id, reward.evidence.id)


def exception(type_: str) -> JsonObject:
    return {"otel.events": [{"name": "exception", "attributes": {"exception.type": type_}}]}


def a_tool(n: int, at_s: float, arguments: Json = None, result: Json = "3", name: str = "add", **fields: Any) -> Event:
    tool = ToolCall(name=name, call_id=fields.pop("call_id", f"t{n}"), arguments=arguments, result=result)
    return a_span(n, at_s, tool=tool, **fields)


def under(n: int, **fields: Any) -> Event:
    """A span of no known kind, inside span 1."""
    return a_span(n, 2 + n / 10, SpanKind.OTHER, parent_span_id=f"{1:016x}", **fields)


@pytest.mark.parametrize(
    ("fields", "failed"),
    [
        ({}, False),
        ({"status": "ok"}, False),
        ({"status": "error"}, True),
        ({"error_type": "ValueError"}, True),
        ({"error_type": "ValueError", "status": "ok"}, False),  # it was handled
        ({"attributes": exception("ValueError")}, True),
        ({"attributes": exception("ValueError"), "status": "ok"}, False),
        ({"attributes": {"exception.type": "KeyError"}}, True),
        ({"attributes": {"process.exit.code": 0}}, False),
        ({"attributes": {"process.exit.code": 1}, "status": "ok"}, True),
        ({"attributes": {"exit_code": "2"}}, True),
        ({"attributes": {"process.exit.code": "none"}}, False),
        ({"attributes": {"http.response.status_code": 204}}, False),
        ({"attributes": {"http.response.status_code": 404}, "status": "ok"}, True),
        ({"attributes": {"http.status_code": 500}}, True),
        ({"attributes": {"mcp.method.name": "tools/call", "rpc.response.status_code": "-32602"}}, True),
        ({"attributes": {"rpc.response.status_code": "-32602"}}, False),  # not MCP
        ({"attributes": {"isError": True}}, True),
    ],
)
def test_a_tool_failed_when_its_span_says_so(fields: dict[str, Any], failed: bool) -> None:
    assert given(ToolStatus(), a_span(1, 1, **fields)) == [(-0.1 if failed else 0.1, "span-1", None)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"attributes": {"process.exit.code": "none"}},
        {"attributes": {"rpc.response.status_code": "-32602"}},  # not MCP
        *({"tool": ToolCall(name="add", result=mask)} for mask in ("__REDACTED__", "<elided>", "[REDACTED]", "N/A")),
        {"tool": ToolCall(name="add", result={"result": "<not specified>"})},
        {"tool": ToolCall(name="add", result={"error": "no such user"})},
        {"tool": ToolCall(name="add", result='{"status": "error", "error_message": "no such user"}')},
    ],
)
def test_a_span_that_does_not_say_how_its_tool_ended_gives_nothing(fields: dict[str, Any]) -> None:
    silent = {"tool": ToolCall(name="add", call_id="t1")} | fields
    assert given(ToolStatus(), a_span(1, 1, **silent)) == []
    failed, corrected = a_span(2, 2, status="error"), a_span(3, 3, **silent)
    assert given(SelfCorrection(), failed, corrected) == []
    later = given(SelfCorrection(), failed, corrected, a_span(4, 4))
    assert [who for _, who, _ in later] == ["span-4"]


def test_the_tools_own_work_says_how_it_ended_where_its_span_does_not() -> None:
    silent = a_span(1, 2, tool=ToolCall(name="add"))
    assert given(ToolStatus(), silent, under(2, attributes={"process.exit.code": 0})) == [(0.1, "span-1", None)]
    assert given(ToolStatus(), silent, under(2, attributes={"process.exit.code": 1})) == [(-0.1, "span-1", None)]
    assert given(ToolStatus(), silent, under(2)) == []


def test_an_error_that_a_dialect_found_in_the_result_is_an_error() -> None:
    assert given(ToolStatus(), a_span(1, 1, tool=ToolCall(name="add", result="3", error=""))) == [
        (-0.1, "span-1", None)
    ]


@pytest.mark.parametrize("arguments", [None, "__REDACTED__", {"x": "<elided>"}, {"x": ["[REDACTED]"]}])
def test_masked_or_absent_arguments_are_not_judged(arguments: Json) -> None:
    schema: JsonObject = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    spans = [
        a_span(n, n, tool=ToolCall(name="add", arguments=arguments, parameters_schema=schema, result="3"))
        for n in (1, 2)
    ]
    assert given(SchemaValidArguments(), *spans) == []
    assert given(RepeatedCall(), *spans) == []


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        ("4", False),
        ({"content": [{"type": "text", "text": "4"}], "isError": False}, False),
        ({"content": [{"type": "text", "text": "no such user"}], "isError": True}, True),
        ('{"isError": true}', True),
        ({"jsonrpc": "2.0", "id": 1, "result": {"isError": False}}, False),
        ({"jsonrpc": "2.0", "id": 1, "result": {"isError": True}}, True),
        ({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "away"}}, True),
        ({"stdout": "", "exit_code": 1}, True),
        ({"stdout": "", "returncode": 0}, False),
        ([True], False),
        ("{broken", False),
    ],
)
def test_a_tool_failed_when_its_result_says_so(result: Json, failed: bool) -> None:
    assert given(ToolStatus(), a_tool(1, 1, result=result, status="ok")) == [(-0.1 if failed else 0.1, "span-1", None)]


@pytest.mark.parametrize("how", [{}, {"status": "ok"}, {"attributes": {"process.exit.code": 0}}])
@pytest.mark.parametrize(
    "result", ['{"success": false}', {"errors": ["no"]}, "Error: no such file", {"status": "Error"}]
)
def test_a_result_in_whose_words_the_tool_failed_is_neither_paid_nor_punished(
    result: Json, how: dict[str, Any]
) -> None:
    assert given(ToolStatus(), a_tool(1, 1, result=result, **how)) == []
    corrected = [failed(1, "no x"), a_tool(2, 2, result=result, **how)]
    assert given(SelfCorrection(), *corrected) == []
    ended = under(2, attributes={"process.exit.code": 0})
    assert given(ToolStatus(), a_tool(1, 2, result=result), ended) == []
    assert given(ToolStatus(), a_tool(1, 2, result=result), under(3, attributes={"process.exit.code": 1})) == [
        (-0.1, "span-1", None)
    ]


@pytest.mark.parametrize(
    ("message", "value"),
    [({"is_error": True}, -0.1), ({"status": "error"}, -0.1), ({"is_error": False}, 0.1), ({}, 0.1)],
)
def test_an_error_that_the_next_request_reports_is_an_error(message: JsonObject, value: float) -> None:
    """Anthropic's clients say it in the tool's result, which the gateway records with the next call."""
    first = asking(("call_0", "add", {"x": 1}))
    answer: JsonObject = {"role": "tool", "tool_call_id": "call_0", "content": "3", **message}
    other = asking(("call_0", "add", {"x": 2}))
    elsewhere: JsonObject = {"role": "tool", "tool_call_id": "call_0", "content": "no", "is_error": True}
    calls = [
        a_call(1, 1, first),
        a_call(2, 2.2, request={"messages": [other, elsewhere]}),
        a_call(3, 3, request={"messages": [other, elsewhere, first, answer]}),
    ]
    span = a_tool(1, 2, {"x": 1}, call_id="call_0")
    assert given(ToolStatus(), *calls, span) == [(value, "span-1", "call-1")]


@pytest.mark.parametrize(
    "content", ["Error: no such file", [{"type": "text", "text": "Error: "}, {"type": "text", "text": "no"}]]
)
def test_a_result_that_the_next_request_shows_as_an_error_is_not_paid(content: Json) -> None:
    """So the gateway shows a failed tool of an Anthropic client to the model."""
    first = asking(("call_0", "add", {"x": 1}))
    told: JsonObject = {"role": "tool", "tool_call_id": "call_0", "content": content}
    calls = [a_call(1, 1, first), a_call(2, 3, request={"messages": [first, told]})]
    assert given(ToolStatus(), *calls, a_tool(1, 2, {"x": 1}, call_id="call_0")) == []


def test_what_happened_inside_a_tool_counts_when_its_span_says_nothing() -> None:
    again = [
        under(2, attributes={"http.response.status_code": 503}),
        under(3, attributes={"http.response.status_code": 200}),
    ]
    assert given(ToolStatus(), a_span(1, 2), again[0]) == [(-0.1, "span-1", None)]
    assert given(ToolStatus(), a_span(1, 2), *again) == [(0.1, "span-1", None)]  # tried again, and well
    assert given(ToolStatus(), a_span(1, 2, status="ok"), again[0]) == [(0.1, "span-1", None)]
    deep = a_span(4, 2.5, SpanKind.OTHER, parent_span_id=f"{2:016x}", attributes={"process.exit.code": 3})
    assert given(ToolStatus(), a_span(1, 2), under(2), deep) == [(-0.1, "span-1", None)]


def test_a_sub_agent_or_a_model_inside_a_tool_is_not_the_tool() -> None:
    agent = a_span(2, 2.1, SpanKind.AGENT_STEP, parent_span_id=f"{1:016x}", status="error")
    inner = a_tool(3, 2.2, name="search", parent_span_id=agent.span_id, status="error")
    model = a_span(4, 2.3, SpanKind.LLM_CALL, parent_span_id=f"{1:016x}", status="error")
    rewards = given(ToolStatus(), a_tool(1, 2, name="ask_expert"), agent, inner, model)
    assert rewards == [(0.1, "span-1", None), (-0.1, "span-3", None)]


def test_a_tool_call_seen_by_two_instrumentations_is_judged_once() -> None:
    mcp = {"mcp.method.name": "tools/call", "rpc.response.status_code": "-32602"}
    client = a_tool(2, 2.1, {"x": 1}, call_id=None, parent_span_id=f"{1:016x}", attributes=mcp)
    assert given(ToolStatus(), a_tool(1, 2, {"x": 1}), client) == [(-0.1, "span-1", None)]
    other = a_tool(2, 2.1, {"x": 2}, call_id=None, parent_span_id=f"{1:016x}", status="error")
    assert given(ToolStatus(), a_tool(1, 2, {"x": 1}), other) == [(0.1, "span-1", None), (-0.1, "span-2", None)]


def test_spans_that_are_their_own_parents_end_nobody() -> None:
    round_about = [a_span(n, n, parent_span_id=f"{3 - n:016x}", tool=ToolCall(name=str(n), result=n)) for n in (1, 2)]
    assert len(given(ToolStatus(), *round_about, a_span(3, 3, parent_span_id=f"{3:016x}"))) == 3


def test_ten_thousand_nested_spans_are_judged_in_one_pass() -> None:
    nested = [a_span(n, 1, SpanKind.OTHER, parent_span_id=f"{n - 1:016x}") for n in range(2, 10_000)]
    assert len(given(ToolStatus(), a_span(1, 1), *nested)) == 1


def says(text: str | None) -> JsonObject:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("settings", "text", "value"),
    [
        ({}, '{"a": 1}', 0.1),
        ({}, "a: 1", -0.1),
        ({}, '```json\n{"a": 1}\n```', -0.1),
        ({"fenced": True}, '```json\n{"a": 1}\n```', 0.1),
        ({"json_schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', 0.1),
        ({"json_schema": {"type": "object", "required": ["a"]}}, '{"b": 1}', -0.1),
        ({"pattern": r"answer: \d+"}, "answer: 42", 0.1),
        ({"pattern": r"answer: \d+"}, "the answer: 42", -0.1),
    ],
)
def test_an_answer_parses_or_not(settings: dict[str, Any], text: str, value: float) -> None:
    assert given(ParseableOutput(**settings), a_call(1, 1, says(text))) == [(value, "call-1", "call-1")]


def test_the_final_answer_is_the_last_one_with_a_text() -> None:
    calls = [a_call(1, 1, says("no")), a_call(2, 2, says("[]")), a_call(3, 3, asking(("t", "add", {})))]
    assert given(ParseableOutput(), *calls) == [(0.1, "call-2", "call-2")]
    every = ParseableOutput(which="every")
    assert given(every, *calls) == [(-0.1, "call-1", "call-1"), (0.1, "call-2", "call-2")]
    assert given(ParseableOutput(), calls[2]) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"pattern": "("},
        {"json_schema": {"type": "nonsense"}},
        {"json_schema": {"$ref": "http://example.invalid/s.json"}},
        {"pattern": "a", "json_schema": {}},
        {"tool": "x"},
    ],
)
def test_a_form_that_nothing_can_be_held_against_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ParseableOutput(**settings)


def found(n: int, documents: Json, key: str = "gen_ai.retrieval.documents") -> Event:
    return a_span(n, n, SpanKind.RETRIEVAL, attributes={key: documents})


def test_an_empty_retrieval_and_one_that_brings_nothing_new() -> None:
    searches = [
        found(1, [{"id": "a", "score": 0.9}, {"id": "b", "score": 0.8}]),
        found(2, []),
        found(3, '[{"id": "b", "score": 0.1}]'),
        found(4, [{"id": "c"}], "retrieval.documents"),
        a_span(5, 5, SpanKind.RETRIEVAL, attributes={"retrieval.documents.0.document.id": "a"}),
        a_span(6, 6, SpanKind.RETRIEVAL, attributes={"db.response.returned_rows": 0}),
        a_span(7, 7, SpanKind.RETRIEVAL),  # says nothing
    ]
    expected = [(-0.1, "span-2", None), (-0.2, "span-3", None), (-0.2, "span-5", None), (-0.1, "span-6", None)]
    assert given(Retrieval(empty=-0.1, repeated=-0.2), *searches) == expected
    assert given(Retrieval(found=0.05, empty=None, repeated=None), *searches) == [
        (0.05, "span-1", None),
        (0.05, "span-4", None),
    ]


def test_documents_without_ids_are_told_apart_by_content_whatever_their_scores() -> None:
    searches = [
        found(1, [{"content": "a", "score": 0.9}]),
        found(2, [{"content": "a", "score": 0.1}, {"content": "b", "score": 0.05}]),  # one of them is new
        found(3, [{"content": "b", "score": 0.7}, {"content": "a", "rank": 1}]),
    ]
    assert given(Retrieval(), *searches) == [(-0.1, "span-3", None)]


@pytest.mark.parametrize(
    ("result", "value"),
    [
        ("", -0.1),
        ("No results found.", -0.1),
        ("[]", -0.1),
        ({"results": []}, -0.1),
        ("Paris is the capital", 0.1),
        (["x"], 0.1),
        ({"hits": [{"document": {"id": 1}}]}, 0.1),
        ({"answer": "x"}, None),
        (None, None),
    ],
)
def test_tools_that_search_are_retrievals_when_the_filter_names_them(result: Json, value: float | None) -> None:
    rule = Retrieval(tool="search*", found=0.1)
    span = a_tool(1, 1, result=result, name="search_web")
    assert [v for v, *_ in given(rule, span)] == ([] if value is None else [value])
    assert given(rule, a_tool(1, 1, result=result, name="add"), found(2, [])) == []


def turn(n: int, message: JsonObject, prompt: Json = None, **fields: Any) -> Event:
    """A call with a prompt of its own, as the next turn of a conversation has."""
    request: JsonObject = {"messages": [{"role": "user", "content": f"turn {n}" if prompt is None else prompt}]}
    return a_call(n, n, message, request=request, **fields)


def test_an_identical_tool_call_after_another_prompt_is_a_repetition() -> None:
    calls = [
        turn(1, asking(("t1", "add", {"x": 1, "y": 2}))),
        turn(2, asking(("t2", "add", '{"y": 2, "x": 1}'))),
        turn(3, asking(("t3", "add", {"x": 1, "y": 3}))),
        turn(4, asking(("t4", "add", {"x": 9}), ("t5", "add", {"x": 9}))),
        turn(5, asking(("t6", "add", {"x": 10**30}))),
    ]
    assert given(RepeatedCall(), *calls) == [(-0.1, "call-2", "call-2"), (-0.1, "call-4", "call-4")]
    assert given(RepeatedCall(tool_call=None), *calls) == []


def test_samples_of_one_prompt_repeat_nothing() -> None:
    samples = [turn(n, asking((f"t{n}", "add", {"x": 1})), prompt="the same") for n in range(1, 5)]
    assert given(RepeatedCall(), *samples) == []
    assert given(RepeatedCall(), *samples, turn(5, asking(("t5", "add", {"x": 1})))) == [(-0.1, "call-5", "call-5")]


def test_an_identical_answer_is_a_repetition_for_the_same_agent_only() -> None:
    calls = [turn(n, says("I do not know."), agent_name=agent) for n, agent in ((1, "a"), (2, "b"), (3, "a"))]
    assert given(RepeatedCall(answer=-0.3), *calls) == [(-0.3, "call-3", "call-3")]
    thinking = [turn(n, asking((f"t{n}", "add", {"x": n})) | {"content": "Let me see."}) for n in (1, 2)]
    assert given(RepeatedCall(), *thinking) == []


def test_repetition_is_seen_in_spans_where_no_model_call_shows_it() -> None:
    spans = [a_tool(n, n, {"x": 1}) for n in (1, 2)]
    assert given(RepeatedCall(), *spans) == [(-0.1, "span-2", None)]
    assert given(RepeatedCall(), turn(1, asking(("q", "add", {"x": 1}))), *spans) == []  # the model call shows it
    assert given(RepeatedCall(), *(a_tool(n, n) for n in (1, 2))) == []  # arguments were not captured


def used(n: int, seconds: float, prompt: int = 0, completion: int = 0, **fields: Any) -> Event:
    return a_call(
        n, n * 10, latency_s=seconds, usage=Usage(prompt_tokens=prompt, completion_tokens=completion), **fields
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"measure": "latency_s", "limit": 2, "per": "call"}, [(-0.1, "call-2")]),
        ({"measure": "latency_s", "limit": 2, "per": "call", "penalty": "linear"}, [(-0.05, "call-2")]),
        ({"measure": "latency_s", "limit": 2, "per": "call", "penalty": "linear", "full_at": 3}, [(-0.1, "call-2")]),
        ({"measure": "latency_s", "limit": 2, "per": "call", "within": 0.2}, [(0.2, "call-1"), (-0.1, "call-2")]),
        ({"measure": "latency_s", "limit": 12}, [(-0.1, ROLLOUT)]),  # 10 s to 23 s
        ({"measure": "latency_s", "limit": 14}, []),
        ({"measure": "tokens", "limit": 100}, [(-0.1, ROLLOUT)]),
        ({"measure": "completion_tokens", "limit": 100}, []),
        ({"measure": "tokens", "limit": 100, "per": "call", "penalty": "linear"}, [(-0.02, "call-2")]),
        ({"measure": "calls", "limit": 1, "penalty": "linear", "over": -1.0}, [(-1.0, ROLLOUT)]),
        ({"measure": "calls", "limit": 1, "agent": "b"}, []),
        ({"measure": "tool_calls", "limit": 0, "tool": "add"}, [(-0.1, ROLLOUT)]),
        ({"measure": "tool_calls", "limit": 0, "tool": "sub"}, []),
    ],
)
def test_a_budget_is_held_against_what_was_used(settings: dict[str, Any], expected: list[tuple[float, str]]) -> None:
    events = [used(1, 1, 50, 10), used(2, 3, 100, 20, agent_name="b"), used(3, 99, error="upstream"), a_span(1, 12)]
    assert [(value, where) for value, where, _ in given(Budget(**settings), *events)] == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"measure": "calls", "limit": 1, "per": "call"},
        {"measure": "tokens", "limit": 1, "tool": "x"},
        {"measure": "tokens", "limit": 1, "full_at": 1},
        {"measure": "tokens", "limit": 1, "shaping": {"gamma": 1}},
        {"limit": 1},
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Budget(**settings)


def test_uncounted_tokens_are_no_opinion() -> None:
    assert given(Budget(measure="tokens", limit=1, within=0.1), used(1, 1)) == []
    assert given(Budget(measure="latency_s", limit=1, within=0.1)) == []


def failed(n: int, message: str, **fields: Any) -> Event:
    return a_span(n, n, status="error", error_type="ValueError", error_message=message, **fields)


def test_success_after_an_error_of_the_same_tool_is_rewarded_once() -> None:
    calls = [a_call(n, n - 0.5) for n in range(1, 5)]
    spans = [a_span(1, 1), failed(2, "no x"), a_tool(3, 3, name="sub"), a_span(4, 4), a_span(5, 5)]
    assert given(SelfCorrection(), *calls, *spans) == [(0.1, "span-4", "call-4")]


def test_the_same_error_twice_earns_nothing() -> None:
    assert given(SelfCorrection(), failed(1, "no x"), failed(2, "no x"), a_span(3, 3)) == []


def test_failing_on_purpose_pays_once_whatever_the_errors_say() -> None:
    """Five errors that differ in a file name, each followed by a success."""
    farmed = [one for n in range(1, 10, 2) for one in (failed(n, f"no file {n}.txt"), a_span(n + 1, n + 1))]
    assert given(SelfCorrection(), *farmed) == [(0.1, "span-2", None)]


@settings(max_examples=60, deadline=None)
@given_by(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.text(max_size=3)), max_size=18))
def test_self_correction_pays_at_most_once_and_only_for_a_tools_first_error(story: list[tuple[str, bool, str]]) -> None:
    spans, failures, paid = [], dict.fromkeys("abc", 0), []
    for n, (name, fails, text) in enumerate(story, start=1):
        changes = {"status": "error", "error_type": "E", "error_message": text} if fails else {}
        spans.append(a_tool(n, n, name=name, **changes))
        before = [one for one in story[: n - 1] if one[0] == name]
        if not fails and failures[name] == 1 and before[-1][1]:
            paid.append(n)
        failures[name] += fails
    assert given(SelfCorrection(), *spans) == [(0.1, f"span-{n}", None) for n in paid[:1]]


def test_a_tool_call_that_ran_beside_the_error_corrects_nothing() -> None:
    beside = failed(1, "no x", end_unix_nano=a_span(3, 3).start_unix_nano)
    assert given(SelfCorrection(), beside, a_span(2, 2)) == []
    assert given(SelfCorrection(), beside, a_span(3, 3)) == [(0.1, "span-3", None)]


def a_thumb(n: int, name: str, value: float | None = None, label: str | None = None, **fields: Any) -> Event:
    evaluation = Evaluation(name=name, value=value, label=label)
    return a_span(n, 9, SpanKind.EVALUATION, evaluation=evaluation, derived=True, **fields)


def test_labels_and_ratings_become_numbers() -> None:
    rule = HumanFeedback(
        evaluations=("user_*", "thumbs"), labels={"Up": 1, "down": -1}, scale=(1, 5), signal="feedback"
    )
    events = [
        a_thumb(1, "thumbs", label="UP"),
        a_thumb(2, "thumbs", 5.0, "down"),  # the label is meant
        a_thumb(3, "user_stars", 2.0),
        a_thumb(4, "user_stars", 9.0),
        a_thumb(5, "thumbs", label="hm"),
        a_thumb(6, "toxicity", 1.0),
    ]
    assert [(v, e) for v, e, _ in given(rule, *events)] == [
        (1.0, "span-1"),
        (-1.0, "span-2"),
        (-0.5, "span-3"),
        (1.0, "span-4"),
    ]


def test_feedback_under_a_call_or_a_tool_is_for_that_call() -> None:
    events = [
        a_call(1, 1, parent_span_id=f"{11:016x}"),
        a_call(2, 2),
        a_span(11, 1, SpanKind.LLM_CALL),
        a_span(12, 3, SpanKind.TOOL_CALL),
        a_span(13, 0, SpanKind.AGENT_STEP),
        *(a_thumb(n, "thumbs", 1.0, parent_span_id=f"{n + 10:016x}") for n in (1, 2, 3)),
    ]
    rewards = given(HumanFeedback(evaluations=("thumbs",), signal="thumbs"), *events)
    assert rewards == [(1.0, "span-1", "call-1"), (1.0, "span-2", "call-2"), (1.0, "span-3", None)]


def test_claimed_evaluations_are_not_emitted_too() -> None:
    feedback = HumanFeedback(evaluations=("thumbs*",))
    emitted = Emitted(leaves=("draft",)).leaving(feedback.claimed_evaluations)
    events = [a_thumb(1, "thumbs_up", 1.0), a_thumb(2, "accuracy", 0.5), a_thumb(3, "draft", 0.5)]
    result = judged([emitted, feedback], *events)
    assert [(r.rule, r.name) for r in result.rewards] == [("emitted", "accuracy"), ("human_feedback", "thumbs_up")]


@pytest.mark.parametrize(("shaping", "rules"), [(None, ["human_feedback"]), (Shaping(), [])])
def test_late_feedback_counts_once_and_moves_no_potential(shaping: Shaping | None, rules: list[str]) -> None:
    feedback = HumanFeedback(evaluations=("thumbs",), labels={"up": 0.25}, shaping=shaping)
    book = Rulebook((Emitted().leaving(feedback.claimed_evaluations), feedback), 0.5, late_horizon_s=86_400.0)
    state = opened(book, an_end(), judged(book.rules), [])
    late = a_thumb(1, "thumbs", 1.0, "up")
    assert isinstance(late, SpanRecorded)
    events = revise(book, state, late).events
    assert [e.rule for e in events if isinstance(e, RewardAssigned)] == rules


def two_agents() -> list[Event]:
    """Planner, planner, worker; each asks for a tool, whose span is under its agent's."""
    agents = [a_span(11, 0, SpanKind.AGENT_STEP, agent_name="planner"), a_span(12, 0, SpanKind.AGENT_STEP)]
    calls = [
        a_call(1, 1, asking(("t1", "add", {"x": 1})), policy="p", parent_span_id=f"{11:016x}"),
        a_call(2, 3, asking(("t2", "sub", {"x": 1})), policy="p", agent_name="planner"),
        a_call(3, 5, asking(("t3", "add", {})), policy="p", agent_name="worker"),
    ]
    spans = [
        a_tool(1, 2, parent_span_id=f"{11:016x}"),
        a_tool(2, 4, name="sub"),
        a_tool(3, 6, parent_span_id=f"{12:016x}", agent_name="worker"),
    ]
    return [*agents, *calls, *spans]


@pytest.mark.parametrize(
    ("filters", "seen"),
    [
        ({}, [1, 2, 3]),
        ({"tool": "add"}, [1, 3]),
        ({"tool": ["s*", "x"]}, [2]),
        ({"agent": "plan*"}, [1, 2]),
        ({"agent": "Planner"}, []),
        ({"agent": ["worker", "planner"]}, [1, 2, 3]),
        ({"step": "first"}, [1]),
        ({"step": "last"}, [3]),
        ({"step": -2}, [2]),
        ({"step": "1:"}, [2, 3]),
        ({"step": ":-1"}, [1, 2]),
        ({"step": ["first", 2]}, [1, 3]),
        ({"step": "7"}, []),
        ({"tool": "add", "agent": "planner", "step": "0:2"}, [1]),
    ],
)
def test_filtered_spans_give_no_signal(filters: dict[str, Any], seen: list[int]) -> None:
    spans = [where for _, where, _ in given(ToolStatus(**filters), *two_agents())]
    assert spans == [f"span-{n}" for n in seen]


@pytest.mark.parametrize(
    ("filters", "seen"),
    [({}, [1, 2, 3]), ({"tool": "add"}, [1, 3]), ({"agent": "planner"}, [1, 2]), ({"step": "-1"}, [3])],
)
def test_filtered_calls_give_no_signal(filters: dict[str, Any], seen: list[int]) -> None:
    calls = [call for _, _, call in given(SchemaValidArguments(**filters), *two_agents())]
    assert calls == [f"call-{n}" for n in seen]


def test_calls_that_are_no_actions_of_a_policy_have_no_step() -> None:
    calls = [a_call(1, 1, policy=None), a_call(2, 2, policy="p", error="x"), a_call(3, 3, policy="p")]
    rule = ParseableOutput(which="every", step="first")
    assert [call for _, _, call in given(rule, *calls)] == ["call-3"]


@pytest.mark.parametrize("step", ["second", "1:2:3", ":x", True, 1.5, ""])
def test_a_step_that_is_none_is_refused(step: Any) -> None:
    with pytest.raises(ValidationError):
        ToolStatus(step=step)


def test_a_signal_is_named_and_its_rule_stays_told() -> None:
    result = judged([ToolStatus(name="tools", signal="worked")], a_span(1, 1))
    assert [(r.rule, r.name, r.value) for r in result.rewards] == [("tools", "worked", 0.1)]


def test_one_rule_may_stand_twice_under_two_names() -> None:
    rules = [ToolStatus(tool="add"), ToolStatus(name="subs", tool="sub", error=-1.0)]
    events = [a_span(1, 1), a_tool(2, 2, name="sub", status="error")]
    assert [(r.rule, r.value) for r in judged(rules, *events).rewards] == [("tool_status", 0.1), ("subs", -1.0)]


def test_the_call_that_asked_is_the_latest_that_gave_the_id() -> None:
    calls = [a_call(n, n, asking(("call_0", "add", {"x": n}))) for n in (1, 2, 3)]
    spans = [a_tool(n, at, call_id="call_0") for n, at in ((1, 1.5), (2, 2.5), (3, 9))]
    assert [call for _, _, call in given(ToolStatus(), *calls, *spans)] == ["call-1", "call-2", "call-3"]
    assert calls[0].started_at == T0 + timedelta(seconds=1)
