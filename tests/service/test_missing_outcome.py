"""From reward's rules to credit's group: a rollout whose outcome nobody gave is left out, and is never worth 0."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_support import CreditLoop, CreditPublisher, call, delivered, finished, one_rollout, reward, rollout
from leyden.events import Event, ModelCallRecorded, RolloutEnded
from leyden.ids import derive
from leyden.reward.app import rulebook
from leyden.reward.settings import RewardSection
from leyden.trainer.core.sequences import to_sequence
from service.reward.reward_fakes import World
from unit.reward.reward_builders import a_span

TOOL_STATUS = [{"rule": "tool_status", "ok": 0.1}]


async def credited(outcomes: list[float | None], section: dict[str, Any]) -> CreditPublisher:
    """What credit publishes for a group of rollouts of two calls and one good tool call each."""
    world = World(rulebook(RewardSection.model_validate(section)))
    evidence: list[Event] = []
    for index, outcome in enumerate(outcomes):
        kept = [e for e in one_rollout(index, None, len(outcomes)) if isinstance(e, ModelCallRecorded | RolloutEnded)]
        *calls, ended = kept
        evidence += [*calls, ended.model_copy(update={"reward": outcome, "span_count": 1})]
        about: dict[str, Any] = {
            "event_id": derive("tool", index),
            "trace_id": f"{rollout(index)}0000",
            "rollout_id": rollout(index),
        }
        await world.deliver(a_span(index, 1, **about), *evidence[-len(kept) :])
    await world.feed_back()
    publisher = CreditPublisher()
    await CreditLoop(publisher).on_batch(
        delivered([*evidence, *world.log.on("rollouts.v1"), *world.log.on("rewards.v1")])
    )
    return publisher


async def test_a_rollout_without_its_outcome_is_left_out_whatever_its_tools_earned() -> None:
    found = await credited([1.0, 0.0, None], {"air": TOOL_STATUS})
    [group] = found.groups
    assert group.left_out == {rollout(2): "no outcome"}
    assert (group.members, group.reward_mean) == (2, pytest.approx(0.6))
    assert {sequence.rollout_id for sequence in found.sequences} == {rollout(0), rollout(1)}


async def test_where_no_outcome_is_configured_intermediate_rewards_are_enough() -> None:
    found = await credited([None, None], {"emitted": None, "air": TOOL_STATUS})
    [group] = found.groups
    assert (group.left_out, group.members, group.reward_mean) == ({}, 2, pytest.approx(0.1))


@pytest.mark.parametrize("value", [1e155, -1e155, 1.7e308, 1.0000001e9])
async def test_a_reward_beyond_its_bound_costs_its_rollout_alone(value: float) -> None:
    """Of a log that somebody else wrote: reward and the gateway give none."""
    publisher = CreditPublisher()
    rollouts = [one_rollout(index, outcome, 3) for index, outcome in enumerate((value, 0.0, 1.0))]
    await CreditLoop(publisher).on_batch(delivered([event for events in rollouts for event in events]))
    [group] = publisher.groups
    assert group.left_out == {rollout(0): "reward out of range: outcome"}
    assert (group.members, group.reward_mean) == (2, 0.5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
async def test_only_outcomes_that_were_given_are_in_the_baseline(outcomes: list[float | None]) -> None:
    publisher = CreditPublisher()
    size = len(outcomes)
    events = [event for index, value in enumerate(outcomes) for event in one_rollout(index, value, size)]
    await CreditLoop(publisher).on_batch(delivered(events))
    [group] = publisher.groups
    good = [value for value in outcomes if value is not None and abs(value) <= 1e9]
    assert group.members == len(good)
    assert group.reward_mean == pytest.approx(math.fsum(good) / len(good) if good else 0.0)
    assert {s.rollout_id for s in publisher.sequences} == {rollout(i) for i, v in enumerate(outcomes) if v in good}


async def test_a_reward_sent_with_the_end_beyond_its_bound_fails_its_rule_and_not_the_sweep() -> None:
    found = await credited([1.7e308, 1.0, 0.0], {"air": TOOL_STATUS})
    [group] = found.groups
    assert list(group.left_out) == [rollout(0)]
    assert group.left_out[rollout(0)].startswith("rule failed: emitted")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([1e9, -1e9, 9e8, -1e8, 0.5, -0.0]), min_size=1, max_size=4))
async def test_rewards_whose_sum_is_beyond_the_bound_cost_their_rollout_alone(values: list[float]) -> None:
    """The trainer refuses a group with such a return as a whole."""
    publisher = CreditPublisher()
    made = call("call", [1, 2], [3])
    rewards = [reward(value, rule=f"rule-{n}") for n, value in enumerate(values)]
    judged = finished([made], rewards, group_size=3)
    events = [*judged, *one_rollout(1, 0.0, 3), *one_rollout(2, 1.0, 3)]
    await CreditLoop(publisher).on_batch(delivered(events))
    [group] = publisher.groups
    total = math.fsum(values)
    assert group.left_out == ({rollout(0): f"reward out of range: {total:g} in total"} if abs(total) > 1e9 else {})
    assert {sequence.rollout_id for sequence in publisher.sequences} >= {rollout(1), rollout(2)}
    for sequence in publisher.sequences:
        to_sequence(sequence)
