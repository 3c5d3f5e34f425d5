"""Evaluations that come after the settlement: revisions, the same whatever the races."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.events import Event, RewardAssigned, RewardsCompleted, RolloutSettled, SpanKind, SpanRecorded
from leyden.events.codec import encode
from leyden.kafka.delivered import Delivered
from leyden.reward import metrics
from leyden.reward.core.late import LateOutcome
from sample_values import value_of
from service.reward.judge_fakes import JudgedWorld
from service.reward.reward_fakes import Fuse
from unit.reward.reward_builders import ROLLOUT, a_call, a_score, a_span, an_end

CALL = a_call(1, 1)
EARLY = a_score(1, 0.5)
END = an_end([CALL], span_count=1, reward=1.0)
SUBJECT = f"{ROLLOUT}:0"
HORIZON_S = 3600.0


def late_score(n: int, value: float | None, after_s: float = 60) -> SpanRecorded:
    return a_score(n, value).model_copy(update={"event_time": END.event_time + timedelta(seconds=after_s)})


LATE = [late_score(2, 0.25), late_score(3, -1.0, 120)]


def outcomes() -> dict[str, float]:
    return {o: value_of(metrics.LATE.labels(outcome=o)) for o in LateOutcome}


def counted(before: dict[str, float]) -> dict[str, float]:
    return {o: now - before[o] for o, now in outcomes().items() if now != before[o]}


def completions(world: JudgedWorld) -> list[RewardsCompleted]:
    return [event for event in world.log.on("rewards.v1") if isinstance(event, RewardsCompleted)]


async def judged(horizon_s: float = HORIZON_S) -> JudgedWorld:
    world = JudgedWorld(horizon_s=horizon_s)
    await world.deliver(CALL, EARLY, END)
    await world.settle()
    return world


async def test_each_late_evaluation_is_one_reward_and_one_revision_of_all() -> None:
    world = await judged()
    for span in LATE:
        await world.deliver(span)
    first, second, third = completions(world)
    assert [c.revision for c in (first, second, third)] == [0, 1, 2]
    assert set(first.reward_ids) < set(second.reward_ids) < set(third.reward_ids)
    given = {e.event_id: e for e in world.log.on("rewards.v1") if isinstance(e, RewardAssigned)}
    assert third.reward_ids == sorted(given)
    assert sorted(e.value for e in given.values()) == [-1.0, 0.25, 0.5, 1.0]
    assert third.event_time == LATE[1].event_time
    assert len({c.event_id for c in (first, second, third)}) == 3


async def test_revision_0_has_the_id_that_it_had_before_there_were_revisions() -> None:
    world = await judged()
    without = await judged(horizon_s=0)
    told, other = b'"late_horizon_s":3600.0', b'"late_horizon_s":0.0'
    found = world.log.distinct("rewards.v1")
    assert any(told in value for value in found.values())
    assert {name: value.replace(told, other) for name, value in found.items()} == without.log.distinct("rewards.v1")


async def test_a_duplicate_changes_nothing() -> None:
    world = await judged()
    await world.deliver(LATE[0])
    published, before = len(world.log.published), outcomes()
    await world.deliver(EARLY, LATE[0], LATE[0])
    assert len(world.log.published) == published
    assert counted(before) == {"duplicate": 3}


async def test_past_the_horizon_it_is_counted_and_let_go() -> None:
    world = await judged()
    published, before = len(world.log.published), outcomes()
    await world.deliver(late_score(2, 0.25, HORIZON_S + 1))
    assert len(world.log.published) == published
    assert counted(before) == {"past_horizon": 1}
    await world.deliver(late_score(3, 0.25, HORIZON_S))
    assert completions(world)[-1].revision == 1


async def test_without_a_horizon_late_evaluations_are_counted_and_let_go() -> None:
    world = await judged(horizon_s=0)
    before = outcomes()
    await world.deliver(*LATE)
    assert [c.revision for c in completions(world)] == [0]
    assert counted(before) == {"let_go": 2}
    assert world.states.states == {}


@pytest.mark.parametrize("update", [{"status": "failed"}, {"final": False}])
async def test_an_attempt_that_failed_or_was_given_up_gets_no_late_reward(update: dict[str, object]) -> None:
    world = JudgedWorld(horizon_s=HORIZON_S)
    await world.deliver(CALL, EARLY, END.model_copy(update=update))
    await world.settle()
    published, before = len(world.log.published), outcomes()
    await world.deliver(*LATE)
    assert len(world.log.published) == published
    assert counted(before) == {"let_go": 2}


async def test_a_label_without_a_number_makes_no_revision() -> None:
    world = await judged()
    before = outcomes()
    await world.deliver(late_score(2, None))
    assert [c.revision for c in completions(world)] == [0]
    assert counted(before) == {"no_opinion": 1}


async def test_any_other_span_that_comes_after_the_judgement_is_let_go_and_counted() -> None:
    world = await judged()
    before, tool = value_of(metrics.LATE_SPANS), a_span(9, 5, SpanKind.TOOL_CALL)
    published = len(world.log.published)
    await world.deliver(tool)
    assert (value_of(metrics.LATE_SPANS), len(world.log.published)) == (before + 1, published)
    await world.deliver(LATE[0])
    await JudgedWorld(horizon_s=HORIZON_S).deliver(CALL, tool, END)
    assert value_of(metrics.LATE_SPANS) == before + 1


async def test_an_evaluation_of_a_running_rollout_is_not_late() -> None:
    before = outcomes()
    world = JudgedWorld(horizon_s=HORIZON_S)
    await world.deliver(EARLY, *LATE)
    assert counted(before) == {}


async def test_one_that_comes_between_settlement_and_its_return_is_late() -> None:
    world = JudgedWorld(horizon_s=HORIZON_S)
    await world.deliver(CALL, EARLY, END)
    [settled] = world.own()
    assert isinstance(settled, RolloutSettled)
    await world.deliver(LATE[0])
    assert completions(world) == []
    await world.deliver(settled)
    assert [c.revision for c in completions(world)] == [0, 1]
    await world.deliver(LATE[1])
    assert [c.revision for c in completions(world)] == [0, 1, 2]


async def test_a_sweep_that_judges_beside_a_late_evaluation_loses_nothing() -> None:
    """The sweep has loaded the evidence; before it closes it, the consumer judges too, with a late evaluation."""
    world = JudgedWorld(horizon_s=HORIZON_S)
    await world.deliver(CALL, EARLY, END)
    [settled] = world.own()
    await world.evidence.add([(SUBJECT, "settled", encode(settled))])
    publish = world.log.publish_all
    entered = False

    async def publish_late(outgoing: Sequence[object]) -> None:
        nonlocal entered
        if not entered:
            entered = True
            await world.deliver(LATE[0])
        await publish(outgoing)  # type: ignore[arg-type]

    world.log.publish_all = publish_late  # type: ignore[method-assign,assignment]
    await world.handlers.advance([SUBJECT], given_up=True)
    assert world.states.states[SUBJECT].revision == 1
    await world.deliver(LATE[1])
    assert {c.revision: c.event_id for c in completions(world)}.keys() == {0, 1, 2}
    assert len({encode(c) for c in completions(world)}) == 3


async def test_dying_at_any_step_changes_no_byte() -> None:
    batches: list[list[Event]] = [[CALL, EARLY, END], [LATE[0]], [LATE[1]]]
    unharmed = JudgedWorld(horizon_s=HORIZON_S)
    await unharmed.live(*batches)
    assert unharmed.fuse.steps > 30
    for at in range(unharmed.fuse.steps):
        world = JudgedWorld(horizon_s=HORIZON_S, fuse=Fuse(at))
        await world.live(*batches)
        assert world.log.distinct("rewards.v1") == unharmed.log.distinct("rewards.v1"), at
        assert {encode(e) for e in world.log.on("rewards.v1")} == set(unharmed.log.distinct("rewards.v1").values()), at
        assert world.states.states == unharmed.states.states, at


SETTLED = RolloutSettled(
    event_id="settled",
    event_time=END.event_time,
    producer="reward",
    rollout_id=ROLLOUT,
    attempt=0,
    call_ids=[CALL.call_id],
    span_ids=[EARLY.event_id],
    complete=True,
)
MORE_LATE = [*LATE, late_score(4, None), late_score(5, 0.75, 3601), late_score(6, 0.125, 10)]


@settings(max_examples=60)
@given(st.data())
async def test_any_interleaving_that_keeps_each_partitions_order_gives_the_same_revisions(data: st.DataObject) -> None:
    expected = JudgedWorld(horizon_s=HORIZON_S, decides=False)
    for event in (CALL, EARLY, END, SETTLED, *MORE_LATE):
        await expected.deliver(event)
    assert len(completions(expected)) == 4

    spans: list[Event] = [EARLY, *MORE_LATE]
    for original in data.draw(st.lists(st.sampled_from(spans), max_size=3)):  # a duplicate comes after its first
        spans.insert(data.draw(st.integers(spans.index(original) + 1, len(spans))), original)
    partitions: list[list[Event]] = [spans, [END, SETTLED], [CALL]]
    turns = data.draw(st.permutations([n for n, events in enumerate(partitions) for _ in events]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(turns) - 1), max_size=5)))
    again = data.draw(st.integers(0, len(cuts)))
    world, read = JudgedWorld(horizon_s=HORIZON_S, decides=False), [0, 0, 0]
    for number, (start, end) in enumerate(pairwise([0, *cuts, len(turns)])):
        batch = []
        for n in turns[start:end]:
            batch.append(Delivered(partitions[n][read[n]], "t", "k", n, read[n], f"t/{n}/{read[n]}"))
            read[n] += 1
        await world.handlers.on_batch(batch)
        if number == again:  # its offsets were not committed
            await world.handlers.on_batch(batch)
    assert world.log.distinct("rewards.v1") == expected.log.distinct("rewards.v1")
    assert {encode(e) for e in world.log.on("rewards.v1")} == set(expected.log.distinct("rewards.v1").values())
    assert world.states.states == expected.states.states
