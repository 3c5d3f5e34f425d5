"""`leyden errors`: failed attempts of the log, in groups that mean one trouble."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import command_support as s
from leyden.analysis.failed_rules import read_rule_failures
from leyden.analysis.failures import GroupBy, grouped, masked
from leyden.cli.failing import ErrorsPlan, Failures, as_json, chosen, print_failures, read_failures, since
from leyden.events import Event, Failure, FailureClass, FailureEvidence, ModelCallRecorded, RolloutEnded, Task
from leyden.ids import AttemptRef, derive, rollout_id_of
from leyden.stack.errors import StackError

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ended(
    task: str, attempt: int = 0, message: str = "", kind: str | None = "tool_error", **changes: Any
) -> RolloutEnded:
    rollout_id = rollout_id_of(task, 0)
    failure = Failure(failure_class=FailureClass(kind), message=message) if kind else None
    fields: dict[str, Any] = {
        "event_id": derive("end", rollout_id, attempt), "event_time": NOW, "producer": "gateway",
        "rollout_id": rollout_id, "attempt": attempt, "status": "failed" if kind else "succeeded", "failure": failure,
        "final": True, "task": Task(task_id=task), "group_id": task, "group_size": 1, "call_ids": [],
        "started_at": NOW - timedelta(seconds=5),
    }  # fmt: skip
    return RolloutEnded.model_validate(fields | changes)


def call(task: str, agent: str, version: int) -> ModelCallRecorded:
    rollout_id = rollout_id_of(task, 0)
    return s.call(f"{task}{agent}{version}", rollout_id, [1], [2], [s.ASK], s.ANSWER, agent_name=agent,
                  policy_version=version)  # fmt: skip


EVENTS: list[Event] = [
    ended("a", message="search for 'x' took 31.5 s"),
    ended("b", message="search for 'x' took 8 s\nmore of it", event_time=NOW + timedelta(minutes=1)),
    ended("c", attempt=0, message="ValueError: bad", kind="agent_exception", final=False),
    ended("c", attempt=1, kind=None),
    ended("d", message="search for 'x' took 9 s", kind="timeout"),
    call("a", "planner", 3),
    call("a", "critic", 3),
    call("b", "planner", 4),
]


async def failures(events: list[Event] = EVENTS, **changes: Any) -> Any:
    plan = ErrorsPlan(data_dir=Path(), prefix=None, since=None, **changes)
    log: Any = s.FakeLog(events)
    return await read_failures(log, plan), plan


async def test_attempts_are_grouped_by_class_and_message_without_its_numbers() -> None:
    found, plan = await failures([*EVENTS, *EVENTS])
    groups = grouped(found.attempts, plan.by)
    assert [(g.failure_class, g.about, g.count, g.final) for g in groups] == [
        ("tool_error", "search for 'x' took <n> s", 2, 2),
        ("agent_exception", "ValueError: bad", 1, 0),
        ("timeout", "search for 'x' took <n> s", 1, 1),
    ]
    first = groups[0]
    assert (first.first, first.last) == (NOW, NOW + timedelta(minutes=1))
    assert first.examples == (rollout_id_of("b", 0) + "0000", rollout_id_of("a", 0) + "0000")


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (GroupBy.CLASS, {("tool_error", "", 2), ("agent_exception", "", 1), ("timeout", "", 1)}),
        (GroupBy.TASK, {("tool_error", "a", 1), ("tool_error", "b", 1), ("agent_exception", "c", 1),
                        ("timeout", "d", 1)}),
        (GroupBy.AGENT, {("tool_error", "planner", 2), ("tool_error", "critic", 1), ("agent_exception", "-", 1),
                         ("timeout", "-", 1)}),
        (GroupBy.POLICY_VERSION, {("tool_error", "p@3", 1), ("tool_error", "p@4", 1), ("agent_exception", "-", 1),
                                  ("timeout", "-", 1)}),
    ],
)  # fmt: skip
async def test_attempts_can_be_grouped_otherwise(by: GroupBy, expected: set[Any]) -> None:
    found, plan = await failures(by=by)
    assert {(g.failure_class, g.about, g.count) for g in grouped(found.attempts, plan.by)} == expected


async def test_a_class_can_be_chosen_and_an_end_without_a_failure_is_the_agents() -> None:
    found, _ = await failures(kind="timeout")
    assert [attempt.task_id for attempt in found.attempts] == ["d"]
    old = ended("old").model_copy(update={"failure": None})
    found, _ = await failures([old])
    assert found.attempts[0].failure_class == "agent_exception"


@pytest.mark.parametrize(
    ("message", "shape"),
    [
        ("no route to 10.0.0.7:8080 after 3 tries", "no route to <n> after <n> tries"),
        ("cannot open /var/lib/agent/7/state.db", "cannot open <path>"),
        ("GET https://example.org/a?b=1 failed", "GET <url> failed"),
        ("object at 0x7f3a2b is gone", "object at <id> is gone"),
        ("rollout 1e7de12d3ed09c7829d7c34190e1 is over", "rollout <id> is over"),
        ("call call_a8Xk29sLmQ1 failed", "call <id> failed"),
        ("no user 123e4567-e89b-12d3-a456-426614174000", "no user <id>"),
        ("\n\n  the first line \n the second", "the first line"),
        ("utf8 codec in python3", "utf8 codec in python3"),
        ("and/or is no path, nor is 'a / b'", "and/or is no path, nor is 'a / b'"),
        ("", ""),
    ],
)
def test_what_differs_each_time_is_masked(message: str, shape: str) -> None:
    assert masked(message) == shape


@given(st.text(max_size=500))
def test_masking_takes_any_text_and_again_changes_nothing(message: str) -> None:
    shape = masked(message)
    assert len(shape) <= 300
    assert masked(shape) == shape.strip() or len(shape) == 300


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_messages_that_differ_in_a_number_only_are_one_group(one: int, other: int) -> None:
    assert masked(f"step {one} failed") == masked(f"step {other} failed")


async def test_the_table_and_the_json_say_the_same() -> None:
    found, plan = await failures()
    console = Console(width=200, record=True, color_system=None)
    print_failures(found, plan, console)
    text = console.export_text()
    assert "4 of 5 attempts failed (80.0%)" in text
    assert "search for 'x' took <n> s" in text
    document = json.loads(as_json(found, plan))
    assert (document["ended"], document["failed"]) == (5, 4)
    assert [group["count"] for group in document["groups"]] == [2, 1, 1]
    assert all(group["group"] in text for group in document["groups"])


async def test_show_has_the_evidence_of_a_group_a_rollout_or_an_attempt() -> None:
    evidence = FailureEvidence(error_type="ToolError", traceback="Traceback [red]\n  boom", call_id="c1", tool="search")
    failure = Failure(failure_class=FailureClass.TOOL_ERROR, message="boom", evidence=evidence)
    shown = ended("a").model_copy(update={"failure": failure})
    rollout_id = rollout_id_of("a", 0)
    found, plan = await failures([shown, ended("b", kind="timeout")], show=rollout_id)
    group = next(g for g in grouped(found.attempts, plan.by) if g.failure_class == "tool_error")
    for name in (rollout_id, rollout_id + "0000", group.group):
        _, plan = await failures([shown], show=name)
        assert [attempt.ref for attempt in chosen(found, plan)] == [AttemptRef(rollout_id, 0)]
    console = Console(width=200, record=True, color_system=None)
    print_failures(found, plan, console)
    text = console.export_text()
    assert "Traceback [red]\n  boom" in text and "search" in text and "ToolError" in text
    assert json.loads(as_json(found, plan))[0]["evidence"]["call_id"] == "c1"
    _, plan = await failures([shown], show="deadbeef")
    with pytest.raises(StackError, match="No failed attempt matches --show deadbeef"):
        chosen(found, plan)


async def test_nothing_failed_is_said() -> None:
    found, plan = await failures([ended("a", kind=None)])
    console = Console(width=200, record=True)
    print_failures(found, plan, console)
    assert console.export_text().strip() == "0 of 1 attempts failed (0.0%)"


def test_since_is_a_while_ago_or_a_date() -> None:
    assert since(None, NOW) is None
    assert since("90m", NOW) == NOW - timedelta(minutes=90)
    assert since("2026-01-01", NOW) == datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(StackError, match="use 30m, 12h, 7d, or a date"):
        since("yesterday", NOW)


async def test_a_reward_rule_that_raises_is_shown_although_no_attempt_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    completed = [s.completed(s.A, [], failed_rules=["outcome: exception: KeyError: 'answer'"]), s.completed(s.B, [])]
    log: Any = s.FakeLog(completed)
    found, plan = Failures(2, [], await read_rule_failures(log)), ErrorsPlan(data_dir=Path(), prefix=None, since=None)
    print_failures(found, plan, Console(width=300))
    assert "reward rule outcome failed on 1 rollout: exception: KeyError: 'answer'" in capsys.readouterr().out
    report = json.loads(as_json(found, plan))
    assert [(rule["rule"], rule["rollouts"]) for rule in report["failed_rules"]] == [("outcome", 1)]
