"""A rollout's rewards and actions as episodes: whose reward is whose, and what is left for the outcome."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_support import call, delivered, finished, reward
from leyden.credit.core.assemble import assemble
from leyden.credit.core.evidence import Evidence
from leyden.credit.core.member import Member, Trajectory
from leyden.credit.core.membership import member_of
from leyden.credit.core.section import CreditSection
from leyden.events import ModelCallRecorded, RewardAssigned

FIRST = call("1", [1, 2], [3, 4], at=1)
SECOND = call("2", [1, 2, 3, 4, 9], [5], at=2)
AGAIN = call("3", [1, 2], [6], at=3)
RECORDED = {"strategy": {"name": "gae", "values": "recorded"}}


def member(
    calls: list[ModelCallRecorded], rewards: list[RewardAssigned], section: dict[str, Any] | None = None
) -> Member:
    rules = CreditSection.model_validate(section or {})
    events = delivered(finished(calls, rewards))
    evidence = (Evidence(one.event, one.origin) for one in events)  # type: ignore[arg-type]
    return member_of(assemble(evidence, needs_spans=rules.needs_spans), rules)


def only(found: Member) -> Trajectory:
    [trajectory] = found.trajectories
    return trajectory


def value(of: ModelCallRecorded, estimate: float) -> RewardAssigned:
    return reward(estimate, rule="critic", of=of, weight=0.0).model_copy(update={"name": "value"})


def by(agent: str, one: ModelCallRecorded) -> ModelCallRecorded:
    return one.model_copy(update={"agent_name": agent})


def test_an_actions_own_reward_is_its_calls_and_the_rest_is_the_outcome_on_the_last() -> None:
    rewards = [reward(1.0), reward(0.5, rule="tool", of=FIRST, weight=0.5), reward(-0.25, rule="tool", of=SECOND)]
    [part] = only(member([FIRST, SECOND], rewards)).parts
    assert [(step.own, step.reward) for step in part.episode.steps] == [(0.25, 0.25), (-0.25, 0.75)]
    assert (part.episode.outcome, part.episode.total) == (1.0, 1.0)


def test_the_same_prompt_is_the_same_state_and_another_is_another() -> None:
    [part] = only(member([FIRST, SECOND, AGAIN], [reward(1.0)])).parts
    first, second, again = (step.state for step in part.episode.steps)
    assert first == again != second


def test_what_another_policy_earned_is_outcome() -> None:
    other = call("2", [7], [8], policy="q", at=2)
    found = member([FIRST, other], [reward(1.0), reward(0.5, rule="tool", of=other)])
    episodes = {trajectory.policy: trajectory.parts[0].episode for trajectory in found.trajectories}
    assert (episodes["p"].outcome, episodes["p"].total) == (1.5, 1.5)
    assert (episodes["q"].outcome, episodes["q"].total) == (1.0, 1.5)


def test_each_strategy_sees_its_own_actions_with_the_rollouts_whole_total() -> None:
    section = {"agents": [{"name": "planner", "strategy": {"name": "discounted", "gamma": 0.5}}]}
    calls = [by("planner", FIRST), by("coder", SECOND), by("planner", AGAIN)]
    rewards = [reward(1.0), reward(0.5, rule="tool", of=SECOND), reward(0.25, rule="tool", of=FIRST)]
    trajectory = only(member(calls, rewards, section))
    planner, coder = trajectory.parts
    assert (planner.strategy.name, coder.strategy.name) == ("discounted", "identical")
    assert [step.reward for step in planner.episode.steps] == [0.25, 1.5]
    assert [step.reward for step in coder.episode.steps] == [1.75]
    assert (planner.episode.total, planner.episode.outcome) == (1.75, 1.5)
    assert (coder.episode.total, coder.episode.outcome) == (1.75, 1.25)
    spans = sorted((span.call_id, span.reward) for sequence in trajectory.sequences for span in sequence.transitions)
    assert spans == [("1", 0.25), ("2", 0.5), ("3", 1.0)], "of the policy, and adding up to the total"


def test_an_estimate_is_its_calls_value_and_no_reward() -> None:
    found = member([FIRST, SECOND], [reward(1.0), value(FIRST, 0.25), value(SECOND, 0.75)], RECORDED)
    [part] = only(found).parts
    assert [step.value for step in part.episode.steps] == [0.25, 0.75]
    assert (part.episode.total, [step.own for step in part.episode.steps]) == (1.0, [0.0, 0.0])


def test_a_rollout_with_estimates_alone_was_not_rewarded() -> None:
    assert member([FIRST], [value(FIRST, 0.25)], RECORDED).left_out == "no reward"


def test_a_reward_named_value_that_weighs_something_is_a_reward() -> None:
    heavy = value(FIRST, 0.25).model_copy(update={"weight": 1.0})
    [part] = only(member([FIRST], [heavy])).parts
    assert (part.episode.total, part.episode.steps[0].value) == (0.25, None)


def test_a_rollout_without_all_recorded_values_is_left_out_and_not_zero() -> None:
    found = member([FIRST, SECOND], [reward(1.0), value(FIRST, 0.25)], RECORDED)
    assert found.left_out == "no value: 1 of 2 calls without a recorded value"
    assert found.trajectories == []
    assert member([FIRST, SECOND], [reward(1.0)], {"strategy": "gae"}).left_out is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["planner", "coder", "critic"]), min_size=1, max_size=8),
    st.lists(st.floats(-10, 10), min_size=1, max_size=6),
)
def test_rewards_of_every_part_and_of_the_policy_add_up_to_the_total(agents: list[str], values: list[float]) -> None:
    section = {"agents": [{"name": "planner", "strategy": "step"}, {"name": "coder", "strategy": "step_group"}]}
    calls = [by(agent, call(f"c{n}", [n], [9], at=n)) for n, agent in enumerate(agents)]
    rewards = [reward(number, rule=f"r{n}", of=calls[n] if n < len(calls) else None) for n, number in enumerate(values)]
    trajectory = only(member(calls, rewards, section))
    assert trajectory.total == pytest.approx(math.fsum(values))
    assert sum(len(part.episode.steps) for part in trajectory.parts) == len(calls)
    for part in trajectory.parts:
        assert math.fsum(step.reward for step in part.episode.steps) == pytest.approx(trajectory.total)
        assert math.fsum([*(s.own for s in part.episode.steps), part.episode.outcome]) == pytest.approx(
            trajectory.total
        )
    spans = [span.reward for sequence in trajectory.sequences for span in sequence.transitions]
    assert math.fsum(spans) == pytest.approx(trajectory.total)
