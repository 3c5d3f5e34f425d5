"""Potential-based shaping tells earlier which way things go, and changes no optimal policy; a plain bonus does."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from leyden.events import Event, JsonObject, SpanKind
from leyden.reward.core.rules import (
    Emitted,
    HumanFeedback,
    RepeatedCall,
    SchemaValidArguments,
    SelfCorrection,
    Shaping,
    ToolStatus,
)
from leyden.reward.core.shaping import Potential, shaping_rewards
from unit.reward.reward_builders import a_call, a_score, a_span, an_end, asking, evidence_of, judged

BONUS, GOAL, GAMMA = 0.3, 1.0, 0.9


def test_the_potential_is_what_was_known_before_each_call() -> None:
    calls: list[Event] = [a_call(n, n, policy="p") for n in (1, 2, 3)]
    spans = [a_span(1, 1.5), a_span(2, 2.5, status="error"), a_span(3, 3.5)]
    rule = ToolStatus(ok=1.0, error=-0.5, shaping=Shaping(gamma=0.5), signal="tools", cap=100)
    rewards = judged([rule], *calls, *spans).rewards
    # Phi: 0, 1, 0.5, and 0 at the end, which the last tool's success no longer reaches.
    assert [r.value for r in rewards] == [0.5 * 1 - 0, 0.5 * 0.5 - 1, 0 - 0.5]
    assert [(r.evidence.kind, r.evidence.id, r.call_id) for r in rewards] == [
        ("call", f"call-{n}", f"call-{n}") for n in (1, 2, 3)
    ]
    assert {(r.rule, r.name, r.weight) for r in rewards} == {("tool_status", "tools", 1.0)}
    assert len({r.event_id for r in rewards}) == 3


def test_evidence_of_no_action_is_known_from_the_next_call_on() -> None:
    calls: list[Event] = [a_call(n, n, policy="p") for n in (1, 2, 10)]
    rule = HumanFeedback(evaluations=("helpful",), shaping=Shaping(), cap=100)
    [first, second, third] = judged([rule], *calls, a_score(1, 0.75)).rewards
    assert (first.value, second.value, third.value) == (0.0, 0.75, -0.75)
    before = a_span(1, 0.5, SpanKind.EVALUATION, evaluation=a_score(1, 0.5).evaluation)
    assert [r.value for r in judged([rule], *calls, before).rewards] == [0, 0, 0]


def test_without_signals_or_calls_of_a_policy_nothing_is_shaped() -> None:
    rule = ToolStatus(shaping=Shaping())
    assert judged([rule], a_call(1, 1, policy="p")).rewards == ()
    assert judged([rule], a_call(1, 1), a_span(1, 2)).rewards == ()


@settings(deadline=None)
@given(
    st.lists(st.floats(-10, 10), max_size=8),
    st.floats(0.05, 1.0),
    st.one_of(st.just(math.inf), st.floats(0, 30)),
)
def test_discounted_shaping_sums_to_nothing_within_its_room(targets: list[float], gamma: float, room: float) -> None:
    rewards = shaping_rewards(targets, gamma, room)
    assert len(rewards) == len(targets) + 1
    assert math.fsum(gamma**t * reward for t, reward in enumerate(rewards)) == pytest.approx(0, abs=1e-9)
    assert math.fsum(abs(reward) for reward in rewards) <= room + 1e-9


@settings(deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8), st.lists(st.floats(-10, 10), max_size=4), st.floats(0, 9))
def test_what_comes_later_changes_no_earlier_shaping(now: list[float], later: list[float], room: float) -> None:
    assert shaping_rewards([*now, *later], 0.9, room)[: len(now)] == shaping_rewards(now, 0.9, room)[: len(now)]


def test_a_bound_holds_the_potential_back_and_no_more_than_it_must() -> None:
    assert shaping_rewards([5.0], 1.0, 4.0) == [2.0, -2.0]
    assert shaping_rewards([1.0, 5.0], 1.0, 4.0) == [1.0, 1.0, -2.0]
    assert shaping_rewards([2.0, -5.0], 1.0, 4.0) == [2.0, -2.0, 0.0]
    assert shaping_rewards([-5.0, 0.0, -1.0], 1.0, 4.0) == [-2.0, 2.0, 0.0, 0.0]
    assert str(shaping_rewards([-1.0], 1.0, 0.0)) == "[0.0, 0.0]"


# A chain of four cells. `right` may slip; in cell 1 a search may be made, which leads nowhere and gives a bonus when it
# is rewarded. The goal is right of the last cell.
State = str | int
ACTIONS = ("right", "search")
Outcomes = list[tuple[float, State, float, float]]
"""Probability, next state, reward, bonus."""


def outcomes(state: int, action: str) -> Outcomes:
    if action == "search":
        return [(1.0, state, 0.0, BONUS if state == 1 else 0.0)]
    ahead: State = state + 1 if state < 3 else "goal"
    return [(0.8, ahead, GOAL if ahead == "goal" else 0.0, 0.0), (0.2, state, 0.0, 0.0)]


def optimal(reward: Callable[[int, State, float, float], float]) -> Mapping[int, str]:
    """The optimal policy by value iteration, for the reward of (state, next state, own reward, bonus)."""
    values: dict[State, float] = {"goal": 0.0, 0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0}

    def q(state: int, action: str) -> float:
        return sum(p * (reward(state, to, r, b) + GAMMA * values[to]) for p, to, r, b in outcomes(state, action))

    for _ in range(400):
        values |= {state: max(q(state, action) for action in ACTIONS) for state in range(4)}
    return {state: max(ACTIONS, key=lambda action: q(state, action)) for state in range(4)}


@pytest.mark.parametrize("phi", [(0.0, 3.0, 0.0, 0.0), (5.0, 4.0, 3.0, 2.0), (-1.0, 7.0, -7.0, 1.0)])
def test_shaping_leaves_the_optimal_policy_where_a_bonus_changes_it(phi: tuple[float, ...]) -> None:
    potentials: dict[State, float] = dict(enumerate(phi))

    def shaped(state: int, to: State, reward: float, bonus: float) -> float:
        here = Potential(potentials[state])
        return reward + (here.ended() if to == "goal" else here.moved(potentials[to], GAMMA)[1])

    plain = optimal(lambda _state, _to, reward, _bonus: reward)
    assert plain == {0: "right", 1: "right", 2: "right", 3: "right"}
    assert optimal(shaped) == plain
    assert optimal(lambda _state, _to, reward, bonus: reward + bonus) == plain | {1: "search"}


HORIZON = 7


def best_plan(bonus_as: str, room: float) -> tuple[float, str]:
    """Value and first action of the best plan for `HORIZON` steps from cell 1, when the potential is the running sum of
    bonuses, held back by `room`: it is part of the state, as what an agent has done so far is part of its prompt.
    """

    @cache
    def value(step: int, cell: State, earned: float, potential: Potential) -> tuple[float, str]:
        found = [(total(step, int(cell), earned, potential, action), action) for action in ACTIONS]
        return max(found, key=lambda one: round(one[0], 9))

    def total(step: int, cell: int, earned: float, potential: Potential, action: str) -> float:
        expected = 0.0
        for p, to, reward, bonus in outcomes(cell, action):
            after, over = earned + bonus, to == "goal" or step + 1 == HORIZON
            ahead, shaping = (potential, potential.ended()) if over else potential.moved(after, GAMMA)
            extra = {"not": 0.0, "naive": bonus, "shaped": shaping}[bonus_as]
            expected += p * (reward + extra + (0.0 if over else GAMMA * value(step + 1, to, after, ahead)[0]))
        return expected

    return value(0, 1, 0.0, Potential(room=room))


@pytest.mark.parametrize("room", [math.inf, 1.0, 0.4, 0.0])
def test_running_sums_as_potential_change_no_plan_and_no_value_whatever_the_cap(room: float) -> None:
    plain = best_plan("not", room)
    assert plain[1] == "right"
    shaped = best_plan("shaped", room)
    assert (pytest.approx(shaped[0]), shaped[1]) == plain
    assert best_plan("naive", room)[1] == "search"


def test_every_behaviour_has_the_same_return_with_and_without_shaping_in_the_whole_service() -> None:
    """Each way to behave for three steps, through `assess`: AIR adds to it as a bonus, and nothing when shaped."""
    by_bonus = set()
    for worked in product((True, False), repeat=3):
        calls = [a_call(n, n, policy="p") for n in (1, 2, 3)]
        spans = [a_span(n, n + 0.5, status="ok" if ok else "error") for n, ok in zip((1, 2, 3), worked, strict=True)]
        end = {"reward": 1.0}
        shaped = judged([Emitted(), ToolStatus(ok=0.4, shaping=Shaping())], *calls, *spans, cap=0.5, end=end)
        assert math.fsum(r.value * r.weight for r in shaped.rewards) == pytest.approx(1.0)
        bonus = judged([Emitted(), ToolStatus(ok=0.4)], *calls, *spans, cap=10, end=end)
        by_bonus.add(round(math.fsum(r.value * r.weight for r in bonus.rewards), 6))
    assert by_bonus == {2.2, 1.7, 1.2, 0.7}


@pytest.mark.parametrize("gamma", [0, -0.5, 1.01, math.nan])
def test_a_discount_that_is_none_is_refused(gamma: float) -> None:
    with pytest.raises(ValidationError):
        Shaping(gamma=gamma)


def test_shaping_is_the_same_whatever_the_order_in_which_evidence_came() -> None:
    calls: list[Event] = [a_call(n, n, policy="p") for n in (1, 2, 3)]
    spans: list[Event] = [a_span(1, 1.5), a_span(2, 2.5)]
    rule = ToolStatus(shaping=Shaping())
    assert judged([rule], *calls, *spans) == judged([rule], *reversed(spans), *reversed(calls))
    assert evidence_of([*calls, an_end()]).calls.keys() == {"call-1", "call-2", "call-3"}


def test_the_worked_example_of_the_docs() -> None:
    wrong: JsonObject = {"x": "one"}
    right: JsonObject = {"x": 1}
    asked = [a_call(n, n, asking((f"t{n}", "add", x)), policy="p") for n, x in ((1, wrong), (2, wrong), (3, right))]
    calls = [call.model_copy(update={"request": call.request | {"messages": [call.call_id]}}) for call in asked]
    spans = [a_span(n, n + 0.5, status="error", error_type="TypeError") for n in (1, 2)]
    events: list[Event] = [*calls, a_call(4, 4, policy="p"), *spans, a_span(3, 3.5)]
    rules = [Emitted(), ToolStatus(), SchemaValidArguments(), RepeatedCall(), SelfCorrection()]
    rewards = judged(rules, *events, cap=0.5, end={"reward": 1.0}).rewards
    assert [(r.rule, r.call_id, r.value, round(r.weight, 3)) for r in rewards] == [
        ("emitted", None, 1.0, 1.0),
        *(("tool_status", f"call-{n}", value, 0.714) for n, value in ((1, -0.1), (2, -0.1), (3, 0.1))),
        *(("schema_valid_arguments", f"call-{n}", value, 0.714) for n, value in ((1, -0.1), (2, -0.1), (3, 0.1))),
        ("repeated_call", "call-2", -0.1, 0.714),
    ]
    assert math.fsum(r.value * r.weight for r in rewards) == pytest.approx(0.786, abs=5e-4)
    shaped = judged([ToolStatus(shaping=Shaping())], *events, cap=0.5).rewards
    assert [round(r.value, 9) for r in shaped] == [-0.1, -0.1, 0.1, 0.1]
