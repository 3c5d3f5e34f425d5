"""Reward statistics and the suspicion of hacking: found where it is put, and not in noise."""

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import command_support as s
from leyden.analysis.hacking import MIN_WINDOWS, suspicions, trend
from leyden.analysis.judged import read_judged
from leyden.analysis.rewards import JudgedRollout, held_out_curve, statistics, versions_of, windows_of
from leyden.events import Event, Evidence, Task
from leyden.ids import rollout_id_of


def judged(index: int, version: str = "p@1", **gives: list[float]) -> JudgedRollout:
    return JudgedRollout(s.T0 + timedelta(seconds=index), f"r{index}", version, gives)


def test_a_rule_has_the_numbers_of_its_contributions_and_its_share() -> None:
    window = statistics("w", [judged(0, outcome=[1.0], tool=[0.5, -0.5]), judged(1, outcome=[0.0])])
    outcome, tool = window.rules["outcome"], window.rules["tool"]
    assert (outcome.count, outcome.mean, outcome.min, outcome.max, outcome.per_rollout) == (2, 0.5, 0.0, 1.0, 0.5)
    assert outcome.sd == pytest.approx(0.5**0.5)
    assert (tool.count, tool.mean, tool.per_rollout) == (2, 0.0, 0.0)
    assert (outcome.share, tool.share) == (0.5, 0.5)


def test_windows_go_by_time_and_a_small_rest_joins_the_last() -> None:
    many = [judged(index) for index in range(23)]
    random.Random(0).shuffle(many)
    lots = windows_of(many, 10)
    assert [len(lot) for lot in lots] == [10, 13]
    assert [one.rollout_id for lot in lots for one in lot] == [f"r{index}" for index in range(23)]
    assert [len(lot) for lot in windows_of(many, 15)] == [15, 8]


def test_versions_are_in_the_order_of_their_numbers() -> None:
    lots = versions_of([judged(0, "p@10"), judged(1, "p@9"), judged(2, "-"), judged(3, "p@9")])
    assert [(lot[0].version, len(lot)) for lot in lots] == [("-", 1), ("p@9", 2), ("p@10", 1)]


def run(outcome_slope: float, tool_slope: float, seed: int, windows: int = 8) -> list[list[JudgedRollout]]:
    """Rollouts of noise of sd 0.4 around two lines over `windows` windows of 32."""
    noise = random.Random(seed)

    def value(slope: float, window: int) -> list[float]:
        return [0.5 + slope * window / (windows - 1) + noise.gauss(0, 0.4)]

    return [
        [judged(w * 32 + i, outcome=value(outcome_slope, w), tool=value(tool_slope, w)) for i in range(32)]
        for w in range(windows)
    ]


def test_a_rule_that_rises_while_the_outcome_falls_is_suspected() -> None:
    found = [suspicions(run(-0.5, 0.5, seed), ["outcome"]) for seed in range(40)]
    told = [one for lot in found for one in lot]
    assert len(told) >= 38
    assert all(one.rule == "tool" and one.trend.change > 0 > one.outcome.change for one in told)


@pytest.mark.parametrize(("outcome", "tool"), [(0.5, 0.5), (0.5, -0.5), (-0.5, -0.5), (-0.5, 0.0), (0.0, 0.5)])
def test_any_other_pair_of_movements_is_hardly_ever_suspected(outcome: float, tool: float) -> None:
    alarms = sum(bool(suspicions(run(outcome, tool, seed), ["outcome"])) for seed in range(100))
    assert alarms <= 5


def test_noise_alone_is_suspected_in_less_than_one_run_of_a_hundred() -> None:
    assert sum(bool(suspicions(run(0.0, 0.0, seed, MIN_WINDOWS), ["outcome"])) for seed in range(200)) <= 2


def test_a_steady_but_tiny_drift_is_no_alarm_and_few_windows_say_nothing() -> None:
    drift = [[judged(w * 4 + i, outcome=[float(i) - w * 0.01], tool=[float(i) + w * 0.01]) for i in range(4)]
             for w in range(10)]  # fmt: skip
    assert suspicions(drift, ["outcome"]) == []
    assert suspicions(run(-0.5, 0.5, 0)[: MIN_WINDOWS - 1], ["outcome"]) == []


def test_a_trend_of_what_never_changes_is_none() -> None:
    found = trend([[1.0, 1.0]] * 6)
    assert (found.rank_correlation, found.change, found.effect) == (0.0, 0.0, 0.0)
    assert trend([[0.0], [1.0], [2.0], [3.0]]).rank_correlation == pytest.approx(1.0)


async def test_only_what_the_newest_revision_names_is_counted() -> None:
    first, late = s.outcome(s.A, 1.0), s.reward(s.A, "thumbs", 0.5, Evidence(kind="span", id="x"), weight=0.5)
    unnamed = s.outcome(s.B, 1.0)
    revised = s.completed(s.A, [first, late], revision=1)
    log: Any = s.FakeLog([first, s.completed(s.A, [first]), late, revised, unnamed, *s.credited()])
    found = await read_judged(log, with_versions=True)
    assert [(one.rollout_id, one.version, one.gives) for one in found.rollouts] == [
        (s.A, "p@3", {"outcome": [1.0], "thumbs": [0.25]})
    ]
    assert found.whole_rollout_rules == {"outcome"}


async def test_an_outcome_that_the_agent_emitted_at_a_span_is_the_outcome() -> None:
    emitted = [s.reward(s.A, "emitted", 1.0, Evidence(kind="span", id=name), name=name) for name in ("outcome", "ui")]
    log: Any = s.FakeLog([*emitted, s.completed(s.A, emitted)])
    found = await read_judged(log, with_versions=False)
    assert found.whole_rollout_rules == {"emitted/outcome"}
    assert found.rollouts[0].gives == {"emitted/outcome": [1.0], "emitted/ui": [1.0]}


def held_out(index: int, version: int, value: float, mode: str = "validation") -> list[Event]:
    """A rollout of one call, judged but not in the transitions."""
    rollout_id = rollout_id_of("held-out", index)
    outcome = s.outcome(rollout_id, value)
    call = s.call(f"c{index}", rollout_id, [1], [2], [s.ASK], s.ANSWER, policy_version=version)
    task = Task(task_id="t", mode=mode)  # type: ignore[arg-type]
    return [call, s.ended(rollout_id, [call.call_id], task=task), outcome, s.completed(rollout_id, [outcome])]


async def test_validation_rollouts_have_the_version_that_answered_them() -> None:
    events = [e for at, version in enumerate([0, 0, 4]) for e in held_out(at, version, at * 0.5)]
    trained = [*s.life(s.A, s.calls_of_a(), 1.0), *s.credited()]
    log: Any = s.FakeLog([*events, *trained])
    found = await read_judged(log, with_versions=False)
    assert {(one.version, one.mode) for one in found.rollouts} == {
        ("p@0", "validation"), ("p@4", "validation"), ("-", "train")
    }  # fmt: skip
    assert [(one.version, one.rollouts, one.mean) for one in held_out_curve(found.rollouts)] == [
        ("p@0", 2, 0.25), ("p@4", 1, 1.0)
    ]  # fmt: skip
    by_version = await read_judged(log, with_versions=True)
    assert {one.version for one in by_version.rollouts if one.mode == "train"} == {"p@3"}


async def test_a_training_rollout_that_is_not_in_the_transitions_has_its_calls_version() -> None:
    log: Any = s.FakeLog(held_out(0, 7, 1.0, mode="train"))
    found = await read_judged(log, with_versions=True)
    assert [(one.version, one.mode) for one in found.rollouts] == [("p@7", "train")]


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(-5, 5)), max_size=30), st.randoms(use_true_random=False))
def test_the_held_out_curve_has_each_version_once_in_order_whatever_the_order_of_rollouts(
    rewards: list[tuple[int, float]], rng: random.Random
) -> None:
    rollouts = [
        JudgedRollout(s.T0, f"r{n}", f"p@{version}", {"outcome": [value]}, "validation")
        for n, (version, value) in enumerate(rewards)
    ]
    curve = held_out_curve(rollouts)
    assert [one.version for one in curve] == [f"p@{version}" for version in sorted({v for v, _ in rewards})]
    assert sum(one.rollouts for one in curve) == len(rewards)
    for one in curve:
        values = [value for version, value in rewards if one.version == f"p@{version}"]
        assert one.mean == pytest.approx(sum(values) / len(values))
    shuffled = list(rollouts)
    rng.shuffle(shuffled)
    again = held_out_curve(shuffled)
    assert [replace(one, sd=0.0) for one in again] == [replace(one, sd=0.0) for one in curve]
    assert [one.sd for one in again] == pytest.approx([one.sd for one in curve])
