"""Which call asked for a tool, and which spans are one execution of it."""

from collections.abc import Sequence
from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.events import Event, Json, JsonObject, ModelCallRecorded, SpanKind, SpanRecorded, ToolCall
from leyden.reward.core.repeats import same_arguments
from leyden.reward.core.rules import Budget, Retrieval, SelfCorrection, ToolStatus
from leyden.reward.core.rules.base import IntermediateRule
from unit.reward.reward_builders import a_call, a_span, asking, judged


def rewards(rule: IntermediateRule, *events: Event) -> list[tuple[float, str | None]]:
    result = judged([rule], *events)
    assert result.completed.failed_rules == []
    return [(round(r.value, 9), r.call_id) for r in result.rewards]


def asked_by(*events: Event) -> list[str | None]:
    return [call for _, call in rewards(ToolStatus(), *events)]


def ran(n: int, at_s: float, id_: str | None = "call_0", lasts_s: float = 0.1, **fields: Any) -> SpanRecorded:
    names = ("name", "arguments", "result")
    tool = {"name": "add", "result": "3"} | {key: fields.pop(key) for key in names if key in fields}
    start = a_span(n, at_s).start_unix_nano
    end = start + int(lasts_s * 1e9)
    return a_span(n, at_s, tool=ToolCall(call_id=id_, **tool), end_unix_nano=end, **fields)


def asks(n: int, at_s: float, arguments: Json, name: str = "add", **fields: Any) -> ModelCallRecorded:
    return a_call(n, at_s, asking(("call_0", name, arguments)), **fields)


def after(*messages: JsonObject) -> JsonObject:
    return {"messages": [{"role": "user", "content": "?"}, *messages]}


def test_two_calls_at_once_with_one_id_are_told_apart_by_arguments_name_agent_or_time() -> None:
    calls = [asks(1, 1, {"x": 1}), asks(2, 1.2, {"x": 2})]
    assert asked_by(*calls, ran(1, 2, arguments={"x": 1}), ran(2, 2, arguments={"x": 2})) == ["call-1", "call-2"]
    calls = [asks(1, 1, {}), asks(2, 1.2, {}, "sub")]
    assert asked_by(*calls, ran(1, 2), ran(2, 2, name="sub")) == ["call-1", "call-2"]
    calls = [asks(1, 1, {}, agent_name="a"), asks(2, 1.2, {}, agent_name="b")]
    assert asked_by(*calls, ran(1, 2, agent_name="a"), ran(2, 2, agent_name="b")) == ["call-1", "call-2"]
    calls = [asks(1, 1, {}), asks(2, 1.2, {}, latency_s=5.0)]
    assert asked_by(*calls, ran(1, 2)) == ["call-1"]


def test_arguments_of_which_a_span_has_only_the_one_value_tell_two_calls_apart() -> None:
    calls = [asks(1, 1, {"city": "Oslo"}), asks(2, 1.2, {"city": "Rome"})]
    assert asked_by(*calls, ran(1, 2, arguments="Oslo"), ran(2, 2, arguments="Rome")) == ["call-1", "call-2"]
    assert not same_arguments("Oslo", {"city": "Oslo", "country": "Norway"})
    assert not same_arguments("Oslo", {"city": "Rome"})
    assert same_arguments('{"city": "Oslo"}', "Oslo")


def test_two_calls_at_once_that_nothing_tells_apart_asked_for_nothing() -> None:
    calls = [asks(1, 1, {"x": 1}), asks(2, 1.2, {"x": 1})]
    assert asked_by(*calls, ran(1, 2, arguments={"x": 1}), ran(2, 2.5, arguments={"x": 1})) == [None, None]


def test_the_latest_call_asked_where_the_others_are_in_its_conversation() -> None:
    first = asking(("call_0", "add", {"x": 1}))
    calls = [a_call(1, 1, first), a_call(2, 3, first, request=after(first, {"role": "tool", "content": "3"}))]
    assert asked_by(*calls, ran(1, 4, arguments={"x": 1})) == ["call-2"], "the first one's span is missing"
    other = a_call(3, 3.1, first)
    assert asked_by(*calls, other, ran(1, 4, arguments={"x": 1})) == [None]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans(), st.randoms(use_true_random=False))
def test_conversations_at_once_whose_ids_are_counted_keep_their_tools(
    turns: list[int], named: bool, shuffle: Random
) -> None:
    """Each conversation asks for one tool a turn, always as `call_0`; agents or arguments tell them apart."""
    calls: list[Event] = []
    spans: list[SpanRecorded] = []
    expected: dict[str, str] = {}
    number = 0
    for who, count in enumerate(turns):
        said: list[JsonObject] = []
        for turn in range(count):
            number += 1
            at = 1 + turn * 3 + who / 10
            arguments: Json = {"x": 1} if named else {"x": who}
            agent = f"agent {who}" if named else None
            message = asking(("call_0", "add", arguments))
            calls.append(a_call(number, at, message, request=after(*said), agent_name=agent))
            spans.append(ran(number, at + 1, arguments=arguments, agent_name=agent))
            expected[spans[-1].event_id] = f"call-{number}"
            said += [message, {"role": "tool", "tool_call_id": "call_0", "content": "3"}]
    events = [*calls, *spans]
    shuffle.shuffle(events)
    found = judged([ToolStatus()], *events)
    assert {r.evidence.id: r.call_id for r in found.rewards} == expected


FRAMEWORK, CLIENT = ({"otel.scope": {"name": name}} for name in ("framework", "mcp client"))


def told_by_two(**other: Any) -> list[SpanRecorded]:
    first = ran(1, 2, "t1", 1.0, arguments={"x": 1}, attributes=FRAMEWORK)
    changes: dict[str, Any] = {"id_": "t1", "lasts_s": 0.8, "arguments": '{"x":1}', "attributes": CLIENT} | other
    return [first, ran(2, changes.pop("at_s", 2.1), changes.pop("id_"), changes.pop("lasts_s"), **changes)]


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"id_": None},
        {"arguments": None},
        {"arguments": "[REDACTED]"},
        {"result": None},
        {"at_s": 2.5, "lasts_s": 2.0},
        {"parent_span_id": f"{77:016x}"},
        {"trace_id": "f" * 32},
        {"dialect": "openinference", "attributes": FRAMEWORK},
    ],
)
def test_one_tool_call_in_two_spans_beside_each_other_is_paid_once(other: dict[str, Any]) -> None:
    calls = [a_call(1, 1, asking(("t1", "add", {"x": 1})))]
    spans = told_by_two(**other)
    assert rewards(ToolStatus(), *calls, *spans) == [(0.1, "call-1")]
    assert rewards(ToolStatus(), *spans) == [(0.1, None)]
    assert rewards(Budget(measure="tool_calls", limit=1), *calls, *spans) == []


@pytest.mark.parametrize(
    "other",
    [
        {"id_": "t2"},
        {"name": "sub", "id_": "t2"},
        {"arguments": {"x": 2}, "id_": "t2"},
        {"id_": None, "arguments": None},
        {"id_": None, "attributes": FRAMEWORK},
        {"id_": None, "at_s": 3.5},
    ],
)
def test_two_tool_calls_are_paid_twice(other: dict[str, Any]) -> None:
    assert len(rewards(ToolStatus(), *told_by_two(**other))) == 2


def test_what_one_of_two_instrumentations_says_of_a_failure_counts() -> None:
    spans = told_by_two(result={"isError": True, "content": [{"type": "text", "text": "no"}]})
    silent = spans[0].model_copy(update={"tool": ToolCall(name="add", call_id="t1", arguments={"x": 1})})
    assert rewards(ToolStatus(), silent, spans[1]) == [(-0.1, None)]


def test_a_tool_call_that_is_tried_again_is_one_and_its_last_try_counts() -> None:
    call = a_call(1, 1, asking(("t1", "add", {"x": 1})))
    tries = [ran(1, 2, "t1", arguments={"x": 1}, status="error"), ran(2, 3, "t1", arguments={"x": 1})]
    assert rewards(ToolStatus(), call, *tries) == [(0.1, "call-1")]
    assert rewards(SelfCorrection(), call, *tries) == [], "the agent corrected nothing"
    assert len(rewards(ToolStatus(), *tries)) == 2, "no call is known that asked for it"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_any_number_of_instrumentations_tells_of_one_execution(
    executions: list[tuple[int, bool]], shuffle: Random
) -> None:
    """Executions at once (arguments, do they have ids), each told by three instrumentations beside each other."""
    spans: list[Event] = []
    for n, (x, has_id) in enumerate(executions):
        for k, scope in enumerate(("a", "b", "c")):
            id_ = f"t{n}" if has_id else None
            told = {"arguments": {"x": x}, "attributes": {"otel.scope": {"name": scope}}}
            spans.append(ran(10 * n + k + 1, 2 + n / 100 + k / 1000, id_, 1.0 - k / 10, **told))
    shuffle.shuffle(spans)
    if len({x for x, has_id in executions}) == len(executions) or all(has_id for _, has_id in executions):
        assert len(rewards(ToolStatus(), *spans)) == len(executions)
    else:  # which of equal ones are one is not known; none is lost and none is paid three times
        assert 1 <= len(rewards(ToolStatus(), *spans)) <= len(executions) * 2


def orders(events: Sequence[Event]) -> list[Sequence[Event]]:
    return list(permutations(events))


def test_no_order_of_arrival_changes_what_is_paid() -> None:
    events = [a_call(1, 1, asking(("t1", "add", {"x": 1}))), *told_by_two(), ran(3, 4, "t1", arguments={"x": 1})]
    assert len({tuple(rewards(ToolStatus(), *order)) for order in orders(events)}) == 1


@pytest.mark.parametrize("wanted", [{"tool": "sub"}, {"agent": "b"}, {"step": "1:"}], ids=["tool", "agent", "step"])
def test_self_correction_finds_the_correction_that_its_filter_wants(wanted: dict[str, Any]) -> None:
    calls = [a_call(n, n - 0.5, asking((f"t{n}", "x", {})), policy="policy") for n in (1, 2, 3, 4)]
    spans = [
        ran(1, 1, "t1", status="error", agent_name="a"),
        ran(2, 2, "t2", agent_name="a"),
        ran(3, 3, "t3", name="sub", status="error", agent_name="b"),
        ran(4, 4, "t4", name="sub", agent_name="b"),
    ]
    assert rewards(SelfCorrection(), *calls, *spans) == [(0.1, "call-2")]
    assert rewards(SelfCorrection(**({"step": "3:"} if "step" in wanted else wanted)), *calls, *spans) == [
        (0.1, "call-4")
    ]
    assert rewards(SelfCorrection(tool="mul"), *calls, *spans) == []


def test_a_search_inside_a_tool_was_caused_by_the_call_that_asked_for_the_tool() -> None:
    calls = [a_call(1, 1, asking(("t1", "find", {}))), a_call(2, 2.5)]
    tool = ran(1, 2, "t1", 5.0, name="find")
    inside = a_span(2, 3, SpanKind.RETRIEVAL, parent_span_id=tool.span_id, attributes={"retrieval.documents": []})
    assert rewards(Retrieval(), *calls, tool, inside) == [(-0.1, "call-1")]
