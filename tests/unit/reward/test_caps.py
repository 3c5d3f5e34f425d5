"""Means never outweigh the end, unless a run file says so."""

import math
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leyden.events import Evidence
from leyden.reward.app import rulebook
from leyden.reward.core.rules import Emitted, IntermediateRule, Shaping, Signal, ToolStatus
from leyden.reward.core.view import RolloutView
from leyden.reward.core.weighing import default_cap
from leyden.reward.settings import RewardSection
from unit.reward.reward_builders import a_call, a_span, judged

CALLS = [a_call(n, n, policy="p") for n in range(1, 6)]


class Any(IntermediateRule):
    """Gives what it is told to, for one call after another."""

    rule: str = "any"
    values: tuple[float, ...] = ()

    def observe(self, view: RolloutView) -> Iterable[Signal]:
        for at, value in enumerate(self.values):
            call = view.calls[at % len(view.calls)].call_id
            yield Signal(value, Evidence(kind="call", id=call), f"signal {at}", call)


finite = st.floats(allow_nan=False, allow_infinity=False)
rules = st.lists(
    st.builds(
        Any,
        name=st.uuids().map(str),
        values=st.lists(finite, max_size=7).map(tuple),
        weight=st.floats(-1e6, 1e6),
        cap=st.none() | st.floats(0, 1e3),
        shaping=st.none() | st.builds(Shaping, gamma=st.floats(0.01, 1)),
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@example([Any(name="near 1", values=(1.0,), weight=5.0, shaping=Shaping(gamma=0.9999999999999999))], 1.0)
@given(rules, st.floats(0, 1e3))
def test_whatever_the_signals_intermediate_rewards_stay_within_their_caps(book: list[Any], cap: float) -> None:
    result = judged([Emitted(), *book], *CALLS, cap=cap, end={"reward": 50.0})
    sizes = {r.name: math.fsum(abs(x.value * x.weight) for x in result.rewards if x.rule == r.name) for r in book}
    room = 1e-9 * max(1.0, cap)
    assert math.fsum(sizes.values()) <= cap + room
    for rule in book:
        assert sizes[rule.name] <= (math.inf if rule.cap is None else rule.cap) + room
    outcome = [r for r in result.rewards if r.rule == "emitted"]
    assert [(r.value, r.weight) for r in outcome] == [(50.0, 1.0)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=5), st.lists(st.floats(-5, 5), max_size=5), st.floats(0, 1))
def test_a_capped_shaped_rule_still_sums_to_nothing_beside_others(
    shaped: list[float], other: list[float], cap: float
) -> None:
    book = [Any(name="shaped", values=tuple(shaped), shaping=Shaping()), Any(name="other", values=tuple(other))]
    rewards = judged(book, *CALLS, cap=cap).rewards
    assert math.fsum(r.value * r.weight for r in rewards if r.rule == "shaped") == pytest.approx(0, abs=1e-9)
    # Nothing of it depends on the other rule, which takes what it leaves.
    alone = judged([book[0], Any(name="other")], *CALLS, cap=cap).rewards
    assert [r.value for r in rewards if r.rule == "shaped"] == [r.value for r in alone]


def test_what_is_not_a_number_fails_the_rule_and_leaves_the_others() -> None:
    result = judged([Any(name="huge", values=(1e308,), weight=1e6), ToolStatus()], a_call(1, 1), a_span(1, 2))
    assert [r.rule for r in result.rewards] == ["tool_status"]
    assert result.completed.failed_rules[0].startswith("huge: ")


def test_a_rule_that_says_one_thing_twice_of_one_call_fails() -> None:
    result = judged([Any(name="twice", values=(1.0, 2.0), signal="same")], CALLS[0])
    assert result.rewards == ()
    assert "two signals same for call-1" in result.completed.failed_rules[0]


def section(text: dict[str, object]) -> RewardSection:
    return RewardSection.model_validate(text)


@pytest.mark.parametrize(
    ("text", "cap"),
    [
        ({}, 0.5),
        ({"emitted": {"weight": 4.0}}, 2.0),
        ({"functions": [{"entry": "leyden.reward.functions:exact_match", "weight": 0.2}]}, 0.1),
        ({"functions": [{"entry": "leyden.reward.functions:exact_match", "weight": 0.0}]}, 0.5),  # only watches
        ({"emitted": {"weight": -1.0, "cap": 0.6}}, 0.3),
        ({"outcome_scale": 0.1}, 0.05),
        ({"outcome_scale": 10, "intermediate_cap": 0.4}, 0.4),
        ({"intermediate_cap": 7}, 7.0),
        ({"emitted": None}, 0.5),
    ],
)
def test_the_default_cap_is_half_of_what_a_good_outcome_adds(text: dict[str, object], cap: float) -> None:
    assert rulebook(section(text)).intermediate_cap == pytest.approx(cap)


@settings(max_examples=30, deadline=None)
@given(st.lists(finite, max_size=5), st.lists(finite, max_size=5), st.floats(0.01, 10), st.floats(0.01, 10))
def test_by_default_no_intermediate_rewards_make_the_worse_outcome_the_better_rollout(
    good: list[float], bad: list[float], weight: float, scale: float
) -> None:
    outcome = Emitted(weight=weight)
    cap = default_cap([outcome, Any(name="air")], scale)

    def total(values: list[float], reward: float) -> float:
        rewards = judged([outcome, Any(name="air", values=tuple(values))], *CALLS, cap=cap, end={"reward": reward})
        return math.fsum(r.value * r.weight for r in rewards.rewards)

    assert total(good, scale) >= total(bad, 0.0) - 1e-9


def test_the_totals_say_what_each_rule_gave_and_whether_it_was_capped() -> None:
    book = [Emitted(), Any(name="a", values=(3.0, -1.0), cap=2.0), Any(name="b", values=(0.25,)), Any(name="silent")]
    result = judged(book, *CALLS, cap=100, end={"reward": 1.0})
    assert [(t.rule, t.intermediate, t.signals, t.contribution, t.capped) for t in result.totals] == [
        ("emitted", False, 1, 1.0, False),
        ("a", True, 2, 1.0, True),
        ("b", True, 1, 0.25, False),
    ]
