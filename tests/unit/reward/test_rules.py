"""What each rule gives, and what it never gives."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.events import Event, Json, RewardAssigned, SpanKind, ToolCall
from leyden.ids import derive
from leyden.reward.core.rules import Emitted, HumanFeedback, Rule, SchemaValidArguments, Signal, ToolStatus
from leyden.reward.core.rules.schema_valid_arguments import valid_arguments
from leyden.reward.functions import RolloutView, exact_match
from unit.reward.reward_builders import ROLLOUT, SCHEMA, Called, a_call, a_score, a_span, asking, judged


def summary(rewards: tuple[RewardAssigned, ...]) -> list[tuple[str, float, str | None]]:
    return [(r.name, r.value, r.call_id) for r in rewards]


def test_emitted_rewards_pass_through() -> None:
    result = judged([Emitted(weight=2.0)], a_score(1, 0.5), a_score(2, None, "label only"), end={"reward": 1.0})
    assert summary(result.rewards) == [("outcome", 1.0, None), ("helpful", 0.5, None)]
    assert {r.weight for r in result.rewards} == {2.0}
    assert result.completed.reward_ids == sorted(r.event_id for r in result.rewards)
    assert result.rewards[0].event_id == derive("reward", ROLLOUT, 0, "emitted", "outcome", ROLLOUT)


def test_nobody_judging_is_no_reward_rather_than_zero() -> None:
    result = judged([Emitted(), Called(name="f", function=lambda view: None)], a_call(1, 1))
    assert result.rewards == ()
    assert result.completed.reward_ids == result.completed.failed_rules == []


def test_a_failed_rollout_gets_no_reward() -> None:
    result = judged([Emitted()], a_score(1, 1.0), end={"status": "failed", "reward": 1.0})
    assert result.rewards == ()
    assert result.completed.reward_ids == []


def test_a_function_sees_the_rollout_in_order() -> None:
    seen: list[RolloutView] = []

    def function(view: RolloutView) -> dict[str, float | None]:
        seen.append(view)
        return {"b": 2, "a": 1.5, "nothing": None}

    result = judged([Called(name="f", function=function)], a_call(2, 2), a_call(1, 1), a_span(9, 3), a_span(8, 1))
    assert summary(result.rewards) == [("a", 1.5, None), ("b", 2.0, None)]
    [view] = seen
    assert [c.call_id for c in view.calls] == ["call-1", "call-2"]
    assert [s.span_id[-1] for s in view.spans] == ["8", "9"]
    assert (view.task.input, view.task.metadata, view.status) == ("2+2", {"answer": "4"}, "succeeded")


def raising(view: RolloutView) -> float:
    raise RuntimeError("the judge is away")


@pytest.mark.parametrize("function", [raising, lambda v: float("nan"), lambda v: "1", lambda v: {"a": float("inf")}])
def test_a_function_that_fails_is_named_and_gives_nothing(function: Any) -> None:
    result = judged([Called(name="judge", function=function), Emitted()], end={"reward": 1.0})
    assert summary(result.rewards) == [("outcome", 1.0, None)]
    assert [f.partition(":")[0] for f in result.completed.failed_rules] == ["judge"]


@pytest.mark.parametrize(
    ("output", "answer", "expected"),
    [
        ("4", 4, 1.0),
        (" 4.0 ", "4", 1.0),
        ("five", "Five", 1.0),
        (5, "4", 0.0),
        (None, "4", 1.0),
        ("4", None, None),
        (True, 1, 0.0),
    ],
)
def test_exact_match(output: Json, answer: Json, expected: float | None) -> None:
    end = {"output": output, "task": {"task_id": "t", "metadata": {"answer": answer}}}
    result = judged([Called(name="m", function=exact_match)], a_call(1, 1), end=end)
    assert [r.value for r in result.rewards] == ([] if expected is None else [expected])
    assert result.completed.failed_rules == []


def test_tool_status_rewards_the_call_that_asked() -> None:
    calls = [a_call(1, 1, asking(("t1", "add", {}), ("t3", "add", {}))), a_call(2, 3), a_call(3, 8)]
    spans = [a_span(1, 4), a_span(2, 5, status="error"), a_span(3, 6, error_type="timeout"), a_span(4, 0.5)]
    rule = ToolStatus(rule="tool_status", ok=0.2, error=-0.4)
    result = judged([rule], *calls, *spans)
    assert summary(result.rewards) == [
        ("tool_status", 0.2, None),  # before any call
        ("tool_status", 0.2, "call-1"),  # asked for by id, though call 2 began in between
        ("tool_status", -0.4, "call-2"),  # the latest before it
        ("tool_status", -0.4, "call-1"),
    ]


def test_an_answerless_call_asked_for_nothing() -> None:
    result = judged([ToolStatus()], a_call(1, 1), a_call(2, 2, error="upstream"), a_span(5, 3))
    assert [r.call_id for r in result.rewards] == ["call-1"]


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        ([("t1", "add", {"x": 1})], 0.1),
        ([("t1", "add", {"x": "one"})], -0.1),
        ([("t1", "add", "{broken")], -0.1),
        ([("t1", "unheard_of", {"x": 1})], -0.1),
        ([("t1", "add", {"x": 1}), ("t2", "add", {})], 0.0),
    ],
)
def test_arguments_are_held_against_the_offered_schema(asked: list[tuple[str, str, Json]], value: float) -> None:
    result = judged([SchemaValidArguments()], a_call(1, 1, asking(*asked)))
    assert [(r.value, r.call_id, r.evidence.kind) for r in result.rewards] == [(value, "call-1", "call")]


@pytest.mark.parametrize("schema", [None, {"type": "no such type"}, {"$ref": "http://example.invalid/schema.json"}])
def test_without_a_usable_schema_there_is_no_signal(schema: Json) -> None:
    result = judged([SchemaValidArguments()], a_call(1, 1, asking(("t1", "add", {"x": 1})), schema=schema))
    assert result.rewards == ()
    assert result.completed.failed_rules == []


def test_a_tool_call_that_is_seen_twice_is_judged_once() -> None:
    spans = [
        a_span(n, 2, tool=ToolCall(name="add", call_id=f"t{n}", arguments={"x": "no"}, parameters_schema=SCHEMA))
        for n in (1, 2)
    ]
    result = judged([SchemaValidArguments()], a_call(1, 1, asking(("t1", "add", {"x": 1}))), *spans)
    assert [(r.value, r.evidence.kind) for r in result.rewards] == [(0.1, "call"), (-0.1, "span")]


def test_a_tool_without_arguments_is_called_with_an_empty_object() -> None:
    assert valid_arguments(None, {"type": "object"}) is True


@settings(deadline=None)
@given(st.integers(0, 40), st.floats(0, 5), st.floats(0, 5), st.floats(-3, 3), st.floats(-3, 3))
def test_intermediate_rewards_never_outweigh_their_caps(
    n: int, rule_cap: float, cap: float, ok: float, error: float
) -> None:
    spans = [a_span(i, 1 + i / 10, status="error" if i % 3 == 0 else "ok") for i in range(n)]
    rules = [
        ToolStatus(name="a", ok=ok, error=error, cap=rule_cap),
        ToolStatus(name="b", ok=error, error=ok),
        Emitted(),
    ]
    rewards = judged(rules, *spans, cap=cap, end={"reward": 50.0}).rewards
    sizes = {rule: sum(abs(r.value * r.weight) for r in rewards if r.rule == rule) for rule in ("a", "b", "emitted")}
    assert sizes["a"] <= rule_cap + 1e-9
    assert sizes["a"] + sizes["b"] <= cap + 1e-9
    assert sizes["emitted"] == 50.0
    assert len({r.event_id for r in rewards}) == 2 * n + 1


class Silent(Rule):
    """An outcome rule that has no opinion."""

    name: str = "silent"

    def signals(self, view: RolloutView) -> list[Signal]:
        return []


THUMB = HumanFeedback(evaluations=("helpful",))
TOOL = a_span(1, 1)


@pytest.mark.parametrize(
    ("rules", "events", "reward", "missing"),
    [
        ([Emitted(), ToolStatus()], [TOOL], None, True),
        ([Emitted(), ToolStatus()], [TOOL], 0.0, False),
        ([Emitted(), Silent(), ToolStatus()], [TOOL], 0.0, False),
        ([Silent(), ToolStatus()], [TOOL], 1.0, True),
        ([ToolStatus()], [TOOL], 1.0, False),
        ([Emitted(weight=0.0), ToolStatus()], [TOOL], None, False),
        ([Emitted(weight=0.0), Silent(), ToolStatus()], [TOOL], 1.0, True),
        ([Emitted().leaving(("helpful",)), THUMB], [a_score(2, 1.0)], None, False),
        ([Emitted().leaving(("helpful",)), THUMB], [], None, True),
    ],
)
def test_an_outcome_is_missing_where_rules_for_it_are_configured_and_none_speaks(
    rules: list[Rule], events: list[Event], reward: float | None, missing: bool
) -> None:
    assert judged(rules, *events, end={"reward": reward}).completed.outcome_missing is missing


def test_feedback_for_one_call_is_no_outcome() -> None:
    events = [a_call(1, 1, parent_span_id=f"{11:016x}"), a_span(11, 1, SpanKind.LLM_CALL)]
    thumb = a_score(2, 1.0).model_copy(update={"parent_span_id": f"{11:016x}"})
    found = judged([Emitted().leaving(("helpful",)), THUMB], *events, thumb)
    assert [reward.call_id for reward in found.rewards] == ["call-1"]
    assert found.completed.outcome_missing


def test_a_failed_rollout_misses_no_outcome() -> None:
    assert not judged([Emitted()], end={"status": "failed"}).completed.outcome_missing
