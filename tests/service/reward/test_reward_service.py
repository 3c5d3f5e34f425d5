"""From evidence to rewards, whatever the order, the duplicates, and the moment of death."""

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.events import (
    Event,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    RolloutStarted,
    SpanRecorded,
)
from leyden.events.codec import encode
from leyden.reward.core.assess import Rulebook
from leyden.reward.core.rules import Emitted, FunctionRule, SchemaValidArguments, ToolStatus
from service.reward.reward_fakes import NOW, Fuse, KilledError, World
from unit.reward.reward_builders import ROLLOUT, a_call, a_score, a_span, an_end, asking

RULES = Rulebook((Emitted(), FunctionRule(name="match"), ToolStatus(), SchemaValidArguments()), 0.25)
CALLS = [a_call(1, 1, asking(("t1", "add", {"x": 1}))), a_call(2, 3, asking(("t2", "add", {}))), a_call(3, 5)]
SPANS = [a_span(1, 2), a_span(2, 4, status="error"), a_span(3, 4), a_score(4, 0.75)]
END = an_end(CALLS, span_count=4, reward=1.0, output="4")
START = RolloutStarted(
    event_id="s",
    event_time=END.started_at,
    producer="gateway",
    rollout_id=ROLLOUT,
    attempt=0,
    group_id="g",
    group_size=2,
)
EVENTS: list[Event] = [START, *CALLS, *SPANS, END]


async def outcome(*batches: list[Event], fuse: Fuse | None = None) -> World:
    world = World(RULES, fuse=fuse or Fuse())
    for batch in batches:
        await world.deliver(*batch)
        await world.feed_back()
    return world


async def test_a_complete_rollout_is_settled_then_rewarded_then_closed() -> None:
    world = await outcome(EVENTS)
    [settled] = world.log.on("rollouts.v1")
    assert isinstance(settled, RolloutSettled)
    assert settled.complete
    *rewards, completed = world.log.on("rewards.v1")
    assert isinstance(completed, RewardsCompleted)
    assert completed.reward_ids == sorted(r.event_id for r in rewards)
    assert {r.rule for r in rewards if isinstance(r, RewardAssigned)} == {
        "emitted",
        "match",
        "tool_status",
        "schema_valid_arguments",
    }
    assert all(r.event_time == END.event_time and r.producer == "reward" for r in rewards)
    assert {record.key for record in world.log.published} == {ROLLOUT}
    assert world.waiting.all == set()
    assert await world.evidence.load([f"{ROLLOUT}:0"]) == {}


@settings(deadline=None)
@given(st.data())
async def test_order_and_duplicates_change_no_byte(data: st.DataObject) -> None:
    expected = await outcome(EVENTS)
    extra = data.draw(st.lists(st.sampled_from(EVENTS), max_size=6))
    order = data.draw(st.permutations(EVENTS + extra))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(order) - 1), max_size=5)))
    bounds = [0, *cuts, len(order)]
    world = await outcome(*([*order[a:b]] for a, b in pairwise(bounds)))
    assert world.log.distinct("rewards.v1") == expected.log.distinct("rewards.v1")
    assert world.log.distinct("rollouts.v1") == expected.log.distinct("rollouts.v1")


@settings(deadline=None)
@given(st.data())
async def test_replay_follows_the_recorded_settlement_in_any_order(data: st.DataObject) -> None:
    """Live gave up on a call and a span that came late; a replay, which has them from the first, must not use them."""
    live = World(RULES)
    await live.deliver(*CALLS[:2], *SPANS[:3], END)
    live.clock.set(NOW + timedelta(seconds=31))
    await live.sweeper.sweep()
    await live.feed_back()
    order = data.draw(st.permutations([*EVENTS, *live.log.on("rollouts.v1")]))
    replay = World(RULES, decides=False)
    for event in order:
        await replay.deliver(event)
    assert replay.log.on("rollouts.v1") == []
    assert [encode(e) for e in replay.log.on("rewards.v1")] == [encode(e) for e in live.log.on("rewards.v1")]


async def test_recorded_settlements_are_never_decided() -> None:
    world = World(RULES, decides=False)
    await world.deliver(*EVENTS)
    assert world.log.published == []


async def test_dying_at_any_step_changes_nothing() -> None:
    batches: list[list[Event]] = [EVENTS[:4], EVENTS[4:]]
    unharmed = await outcome(*batches)
    assert unharmed.fuse.steps > 20
    for at in range(unharmed.fuse.steps):
        world = await outcome(*batches, fuse=Fuse(at))
        assert world.log.distinct("rewards.v1") == unharmed.log.distinct("rewards.v1"), at
        assert world.log.distinct("rollouts.v1") == unharmed.log.distinct("rollouts.v1"), at
        assert {encode(e) for e in world.log.on("rewards.v1")} == set(unharmed.log.distinct("rewards.v1").values()), at
        assert world.waiting.all == set(), at
        assert await world.evidence.load([f"{ROLLOUT}:0"]) == {}, at


async def test_a_redelivered_closed_rollout_does_nothing() -> None:
    world = await outcome(EVENTS)
    published = len(world.log.published)
    await world.deliver(*EVENTS, *world.log.on("rollouts.v1"))
    assert len(world.log.published) == published
    assert world.waiting.all == set()


async def test_the_first_settlement_in_the_log_is_the_one_that_counts() -> None:
    world = World(RULES)
    await world.deliver(*CALLS[:2], *SPANS, END)
    world.clock.set(NOW + timedelta(seconds=31))
    await world.sweeper.sweep()
    await world.deliver(CALLS[2])
    first, second = world.log.on("rollouts.v1")
    assert isinstance(first, RolloutSettled)
    assert isinstance(second, RolloutSettled)
    assert (first.complete, second.complete, first.event_id) == (False, True, second.event_id)
    await world.feed_back()
    follower = World(RULES, decides=False)
    await follower.deliver(*EVENTS, first)
    assert world.log.distinct("rewards.v1") == follower.log.distinct("rewards.v1")


async def test_a_settlement_waits_for_the_evidence_that_it_names() -> None:
    settled = (await outcome(EVENTS)).log.on("rollouts.v1")
    world = World(RULES)
    await world.deliver(END, *settled)
    await world.deliver(*CALLS, *SPANS[:3])
    assert world.log.on("rewards.v1") == []
    await world.deliver(SPANS[3])
    assert len(world.log.on("rewards.v1")) > 1


async def test_evidence_is_given_up_after_its_grace_visibly() -> None:
    world = World(RULES)
    await world.deliver(*CALLS[:2], *SPANS, END)
    world.clock.set(NOW + timedelta(seconds=29))
    await world.sweeper.sweep()
    assert world.log.published == []
    world.clock.set(NOW + timedelta(seconds=30))
    await world.sweeper.sweep()
    [settled] = world.log.on("rollouts.v1")
    assert isinstance(settled, RolloutSettled)
    assert (settled.complete, settled.missing) == (False, ["call-3"])
    await world.sweeper.sweep()
    assert len(world.log.published) == 1


async def test_nobody_is_given_up_while_old_records_are_read() -> None:
    world = World(RULES)
    await world.sweeper.hold_off()
    world.clock.set(NOW + timedelta(hours=1))
    await world.deliver(*CALLS[:2], *SPANS, END)  # an hour old: there is a backlog
    world.clock.set(NOW + timedelta(hours=1, seconds=29))
    await world.sweeper.sweep()
    assert world.log.published == []
    await world.deliver(CALLS[2])
    world.clock.set(NOW + timedelta(hours=2))
    await world.sweeper.sweep()
    await world.feed_back()
    assert {e.complete for e in world.log.on("rollouts.v1") if isinstance(e, RolloutSettled)} == {True}


async def test_an_attempt_that_became_overdue_while_the_service_was_away_has_its_grace_again() -> None:
    world = World(RULES)
    await world.deliver(*CALLS[:2], *SPANS, END)
    world.clock.set(NOW + timedelta(hours=1))
    await world.sweeper.hold_off()
    for seconds in (0, 10, 29):
        world.clock.set(NOW + timedelta(hours=1, seconds=seconds))
        await world.sweeper.sweep()
    assert world.log.published == [], "its last call may be on its way"
    await world.deliver(CALLS[2])
    await world.feed_back()
    assert [e.complete for e in world.log.on("rollouts.v1") if isinstance(e, RolloutSettled)] == [True]


async def test_a_sweep_that_dies_is_made_again() -> None:
    for at in range(20):
        world = World(RULES)
        await world.deliver(*CALLS[:2], *SPANS, END)
        world.clock.set(NOW + timedelta(seconds=31))
        world.fuse.at = world.fuse.steps + at
        try:
            await world.sweeper.sweep()
        except KilledError:
            await world.sweeper.sweep()
        await world.feed_back()
        assert len(world.log.distinct("rollouts.v1")) == 1
        assert world.waiting.all == set()


@pytest.mark.parametrize(
    "end", [END.model_copy(update={"final": False}), END.model_copy(update={"final": False, "status": "failed"})]
)
async def test_an_attempt_that_is_tried_again_is_only_closed(end: RolloutEnded) -> None:
    world = World(RULES)
    await world.deliver(*CALLS, end)
    await world.deliver(*SPANS)
    assert world.log.published == []
    assert world.waiting.all == set()
    assert await world.evidence.load([f"{ROLLOUT}:0"]) == {}


async def test_a_failed_rollout_is_completed_with_no_reward() -> None:
    world = World(RULES)
    await world.deliver(*CALLS, *SPANS, END.model_copy(update={"status": "failed"}))
    await world.feed_back()
    [completed] = world.log.on("rewards.v1")
    assert isinstance(completed, RewardsCompleted)
    assert completed.reward_ids == []


async def test_attempts_are_never_mixed() -> None:
    world = World(RULES)
    other = [event.model_copy(update={"attempt": 1}) for event in EVENTS if not isinstance(event, SpanRecorded)]
    await world.deliver(*other, *EVENTS[:3])
    await world.feed_back()
    assert world.log.published == []


async def test_running_rollouts_are_not_loaded() -> None:
    world = World(RULES)
    await world.deliver(*CALLS, *SPANS)
    assert await world.waiting.among([f"{ROLLOUT}:0"]) == {}
    assert world.log.published == []
