"""Groups on fakes: who is in one, what closes it, and what becomes of those who come later."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_support import (
    T0,
    CreditLoop,
    CreditPublisher,
    delivered,
    late_rewards,
    memory_stores,
    one_rollout,
    rollout,
)
from leyden.clock import ManualClock
from leyden.credit import metrics
from leyden.credit.core.section import CreditSection, GroupSection
from leyden.credit.sweep import Sweeper, SweepSettings
from leyden.events import Event, FailureClass, GroupClosed, GroupClosing
from leyden.ids import derive
from leyden.kafka import Delivered
from sample_values import value_of

RECORDED = CreditSection(group=GroupSection(close="recorded"))
DEADLINE = CreditSection(group=GroupSection(deadline_s=600))
NOW = T0 + timedelta(seconds=70)


def loop(section: CreditSection, now: float = 0.0, name: str = "") -> CreditLoop:
    clock = ManualClock(NOW + timedelta(seconds=now))
    return CreditLoop(CreditPublisher(), section=section, clock=clock, name=name)


def sweeper(one: CreditLoop, rules: CreditSection, **settings: float) -> Sweeper:
    return Sweeper(
        grouping=one.handlers.grouping,
        stores=one.stores,
        group=rules.group,
        reading=one.reading,
        clock=one.clock,
        settings=SweepSettings(**settings),  # type: ignore[arg-type]
    )


def pass_time(one: CreditLoop, seconds: float) -> None:
    assert isinstance(one.clock, ManualClock)
    one.clock.set(one.clock.now() + timedelta(seconds=seconds))


def record(*indices: int, group_id: str = "g", reason: GroupClosing = GroupClosing.COMPLETE, credit: str = "") -> Event:
    return GroupClosed(
        event_id=derive("group-closed", group_id, *indices),
        event_time=T0,
        producer="credit",
        credit=credit,
        group_id=group_id,
        rollout_ids=sorted(rollout(index) for index in indices),
        reason=reason,
    )


def late_members() -> float:
    return value_of(metrics.LATE_MEMBERS)


async def feed(one: CreditLoop, *batches: list[Event]) -> None:
    for batch in batches:
        await one.on_batch(delivered(batch))


async def test_a_group_is_built_only_when_its_record_has_been_read_back() -> None:
    one = loop(CreditSection())
    await one.handlers.on_batch(delivered(one_rollout(0, 1.0, size=2) + one_rollout(1, 0.0, size=2)))
    [closed] = one.publisher.log.records
    assert closed.rollout_ids == sorted([rollout(0), rollout(1)])
    assert (closed.reason, closed.event_time) == (GroupClosing.COMPLETE, T0 + timedelta(seconds=61))
    assert one.publisher.published == []
    await one.read_back()
    assert len(one.publisher.sequences) == 2
    assert one.publisher.groups[0].closed_by is GroupClosing.COMPLETE


async def test_a_replay_follows_the_record_and_leaves_out_who_is_not_named() -> None:
    one, before = loop(RECORDED), late_members()
    await feed(one, [record(0, 1)], one_rollout(0, 1.0, size=3), one_rollout(2, 0.0, size=3))
    assert one.publisher.published == []
    await feed(one, one_rollout(1, 0.0, size=3))
    assert {sequence.rollout_id for sequence in one.publisher.sequences} == {rollout(0), rollout(1)}
    assert one.publisher.groups[0].left_out == {}
    assert late_members() - before == 1


async def test_a_replay_never_closes_a_group_itself() -> None:
    one = loop(RECORDED)
    await feed(one, one_rollout(0, 1.0, size=1))
    assert one.publisher.published == []
    assert one.publisher.log.records == []


async def test_of_two_records_the_first_in_the_log_counts() -> None:
    members = one_rollout(0, 1.0, size=9) + one_rollout(1, 0.0, size=9) + one_rollout(2, 0.5, size=9)
    for batches in ([members, [record(0, 1), record(1, 2)]], [[record(0, 1)], [record(1, 2)], members]):
        one = loop(RECORDED)
        await feed(one, *batches)
        assert {sequence.rollout_id for sequence in one.publisher.sequences} == {rollout(0), rollout(1)}


async def test_a_record_of_another_credit_service_is_not_followed() -> None:
    one = loop(RECORDED)
    await feed(one, [record(0, credit="other")], one_rollout(0, 1.0, size=1))
    assert one.publisher.published == []


async def test_a_named_credit_has_ids_of_its_own() -> None:
    plain, named = loop(CreditSection()), loop(CreditSection(), name="b")
    for one in (plain, named):
        await feed(one, one_rollout(0, 1.0, size=1))
    events = [[out.event for out in one.publisher.published] for one in (plain, named)]
    assert {event.credit for event in events[1]} == {"b"}  # type: ignore[attr-defined]
    assert not {event.event_id for event in events[0]} & {event.event_id for event in events[1]}
    assert plain.publisher.log.records[0].event_id != named.publisher.log.records[0].event_id


async def test_an_over_provisioned_group_closes_with_its_quota_of_usable_members() -> None:
    one, before = loop(CreditSection(group=GroupSection(quota=2))), late_members()
    failed = one_rollout(1, None, size=4, failure=FailureClass.TIMEOUT)
    await feed(one, one_rollout(0, 1.0, size=4), failed)
    assert one.publisher.published == []
    await feed(one, one_rollout(2, 0.0, size=4), one_rollout(3, 0.7, size=4))
    [group] = one.publisher.groups
    assert (group.closed_by, group.members, group.left_out) == (GroupClosing.QUOTA, 2, {rollout(1): "failed: timeout"})
    assert rollout(3) not in {sequence.rollout_id for sequence in one.publisher.sequences}
    assert late_members() - before == 1


async def test_a_quota_takes_those_that_ended_first_when_several_come_at_once() -> None:
    one, before = loop(CreditSection(group=GroupSection(quota=2))), late_members()
    await feed(one, [event for index in (2, 0, 1) for event in one_rollout(index, index / 2, size=4)])
    assert {sequence.rollout_id for sequence in one.publisher.sequences} == {rollout(0), rollout(1)}
    assert late_members() - before == 1


async def test_one_straggler_holds_up_nothing_for_longer_than_the_deadline() -> None:
    one, before = loop(DEADLINE), late_members()
    sweep = sweeper(one, DEADLINE)
    await feed(one, one_rollout(0, 1.0, size=3), one_rollout(1, 0.0, size=3))
    pass_time(one, 599)
    await sweep.sweep()
    assert one.publisher.log.records == []
    pass_time(one, 2)
    await sweep.sweep()
    await sweep.sweep()
    assert len(one.publisher.log.records) == 1, "what is in Kafka is not timed again"
    await one.read_back()
    [group] = one.publisher.groups
    assert (group.closed_by, group.members, group.sequences) == (GroupClosing.DEADLINE, 2, 2)
    await feed(one, one_rollout(2, 0.5, size=3))
    assert len(one.publisher.groups) == 1
    assert late_members() - before == 1


async def test_a_deadline_with_too_few_to_compare_publishes_the_group_with_all_left_out() -> None:
    one = loop(DEADLINE)
    failed = one_rollout(1, None, size=3, failure=FailureClass.TIMEOUT)
    await feed(one, one_rollout(0, 1.0, size=3), failed)
    pass_time(one, 601)
    await sweeper(one, DEADLINE).sweep()
    await one.read_back()
    [group] = one.publisher.groups
    assert (group.policy, group.sequences, group.closed_by) == ("p", 0, GroupClosing.DEADLINE)
    assert group.left_out == {rollout(0): "too few members: 1 of 2", rollout(1): "failed: timeout"}


async def test_no_group_is_given_up_while_a_backlog_is_read() -> None:
    one = loop(DEADLINE)
    sweep = sweeper(one, DEADLINE, backlog_s=30.0)
    await feed(one, one_rollout(0, 1.0, size=3), one_rollout(1, 0.0, size=3))
    pass_time(one, 3600)
    await sweep.hold_off()
    await sweep.sweep()
    assert one.publisher.log.records == [], "nothing was read yet"
    pass_time(one, 31)
    one.reading.behind = True
    await sweep.sweep()
    pass_time(one, 3600)
    await sweep.sweep()
    assert one.publisher.log.records == [], "ingest, reward or credit stands still"
    one.reading.behind = False
    await sweep.sweep()
    assert one.publisher.log.records == [], "they have read everything, and members may be on their way"
    pass_time(one, 31)
    await sweep.sweep()
    assert len(one.publisher.log.records) == 1


@pytest.mark.parametrize("off", [timedelta(hours=-1), timedelta(hours=1)])
async def test_a_gateway_whose_clock_is_off_changes_no_deadline(off: timedelta) -> None:
    one = loop(DEADLINE)
    sweep = sweeper(one, DEADLINE)
    rollouts = [*one_rollout(0, 1.0, size=3), *one_rollout(1, 0.0, size=3)]
    await feed(one, [event.model_copy(update={"event_time": event.event_time + off}) for event in rollouts])
    pass_time(one, 599)
    await sweep.sweep()
    assert one.publisher.log.records == []
    pass_time(one, 2)
    await sweep.sweep()
    assert len(one.publisher.log.records) == 1


async def test_a_replay_times_nothing() -> None:
    rules = CreditSection(group=GroupSection(deadline_s=600, close="recorded"))
    one = loop(rules)
    await feed(one, one_rollout(0, 1.0, size=3))
    pass_time(one, 10_000)
    await sweeper(one, rules).sweep()
    assert one.publisher.log.records == []


BY_TASK = CreditSection(group=GroupSection(by="task", size=2, version_window=2))


async def test_rollouts_started_alone_are_grouped_by_task_and_version_window() -> None:
    one = loop(BY_TASK)
    await feed(
        one,
        one_rollout(0, 1.0, size=1, group_id="a", version=2, task_id="x"),
        one_rollout(1, 0.5, size=1, group_id="b", version=2, task_id="y"),
        one_rollout(2, 0.2, size=1, group_id="c", version=4, task_id="x"),
    )
    assert one.publisher.published == []
    await feed(one, one_rollout(3, 0.0, size=1, group_id="d", version=3, task_id="x"))
    [group] = one.publisher.groups
    assert (group.group_id, group.members) == ("task/x/p/1", 2)
    assert {sequence.rollout_id for sequence in one.publisher.sequences} == {rollout(0), rollout(3)}


async def test_there_is_one_group_per_task_and_window() -> None:
    one, before = loop(BY_TASK), late_members()
    await feed(one, *(one_rollout(index, index / 3, size=1, group_id=f"g{index}") for index in range(3)))
    assert len(one.publisher.groups) == 1
    assert late_members() - before == 1


async def test_groups_that_were_given_stay_and_what_has_no_version_stays_alone() -> None:
    one = loop(BY_TASK)
    await feed(
        one,
        one_rollout(0, 1.0, size=3, group_id="given"),
        one_rollout(1, 1.0, size=1, group_id="measured", mode="validation"),
        one_rollout(2, None, size=1, group_id="never called", turns=0, failure=FailureClass.RUNNER_LOST),
    )
    assert [(group.group_id, group.sequences) for group in one.publisher.groups] == [
        ("measured", 0),
        ("never called", 0),
    ]


async def test_a_member_too_far_behind_the_newest_is_left_out_as_stale() -> None:
    one = loop(CreditSection(group=GroupSection(version_window=2)))
    versions = [10, 8, 7]
    await feed(one, [e for n, v in enumerate(versions) for e in one_rollout(n, n / 2, size=3, version=v)])
    [group] = one.publisher.groups
    assert (group.members, group.left_out) == (2, {rollout(2): "stale: 3 versions behind"})
    assert group.reward_mean == 0.25


HOUR_S = 3600.0


async def test_a_late_reward_publishes_the_whole_group_again_as_the_next_revision() -> None:
    one = loop(CreditSection())
    first, second = (one_rollout(n, 1.0 - n, size=2, horizon_s=HOUR_S) for n in range(2))
    await feed(one, first + second, late_rewards(second, 3.0))
    assert [(group.revision, group.reward_mean) for group in one.publisher.groups] == [(0, 0.5), (1, 2.0)]
    revised = [sequence for sequence in one.publisher.sequences if sequence.revision == 1]
    assert {sequence.rollout_id: sequence.rollout_reward for sequence in revised} == {rollout(0): 1.0, rollout(1): 3.0}
    assert len({out.event.event_id for out in one.publisher.published}) == 6
    before = one.publisher.values
    await feed(one, late_rewards(second, 3.0), first, [one.publisher.log.records[0]])
    assert one.publisher.values == before, "what comes again makes no further revision"


async def test_a_late_reward_can_bring_in_a_member_that_had_none() -> None:
    one = loop(CreditSection())
    unjudged = one_rollout(1, None, size=2, horizon_s=HOUR_S)
    await feed(one, one_rollout(0, 1.0, size=2, horizon_s=HOUR_S) + unjudged, late_rewards(unjudged, 0.5))
    assert [group.members for group in one.publisher.groups] == [1, 2]


async def test_a_late_reward_before_the_group_closes_replaces_the_member() -> None:
    one = loop(CreditSection())
    first = one_rollout(0, 1.0, size=2, horizon_s=HOUR_S)
    await feed(one, first, late_rewards(first, 1.0), one_rollout(1, 0.0, size=2))
    assert [(group.revision, group.reward_mean) for group in one.publisher.groups] == [(1, 1.0)]


@pytest.mark.parametrize(("horizon_s", "after_s"), [(HOUR_S, 3601.0), (0.0, 1.0)])
async def test_past_the_horizon_a_reward_is_counted_and_changes_nothing(horizon_s: float, after_s: float) -> None:
    first = one_rollout(0, 1.0, size=2, horizon_s=horizon_s)
    count = metrics.LATE_REWARDS.labels(outcome="past_horizon")
    for batches in (
        [first, late_rewards(first, 3.0, after_s=after_s), one_rollout(1, 0.0, size=2)],
        [first + one_rollout(1, 0.0, size=2), late_rewards(first, 3.0, after_s=after_s)],
    ):
        one, before = loop(CreditSection()), value_of(count)
        await feed(one, *batches)
        assert [(group.revision, group.reward_mean) for group in one.publisher.groups] == [(0, 0.5)]
        assert value_of(count) - before == 1


async def test_what_nobody_completes_is_shown_and_at_last_forgotten_and_counted() -> None:
    one = loop(CreditSection())
    sweep = sweeper(one, CreditSection(), open_ttl_s=100.0)
    torn = one_rollout(1, 0.0, size=3)[:1]
    await feed(one, one_rollout(0, 1.0, size=3), torn)
    pass_time(one, 60)
    await sweep.sweep()
    for what in ("attempts", "groups"):
        assert value_of(metrics.OPEN.labels(what=what)) == 1
        assert value_of(metrics.OLDEST.labels(what=what)) == 60.0
    before = {what: value_of(metrics.AGED_OUT.labels(what=what)) for what in ("attempts", "groups")}
    pass_time(one, 41)
    await sweep.sweep()
    for what in ("attempts", "groups"):
        assert value_of(metrics.AGED_OUT.labels(what=what)) - before[what] == 1
        assert value_of(metrics.OPEN.labels(what=what)) == 0
    await feed(one, one_rollout(1, 0.0, size=3), one_rollout(2, 0.0, size=3))
    assert one.publisher.published == [], "what was forgotten stays forgotten"


async def test_nothing_stays_open_once_all_is_published() -> None:
    one = CreditLoop(CreditPublisher(), memory_stores(), DEADLINE)
    given_up = one_rollout(1, 0.0, size=2, final=False, failure=FailureClass.TIMEOUT)
    await feed(one, one_rollout(0, 1.0, size=2), given_up, one_rollout(1, 0.0, size=2, attempt=1))
    for subjects in (one.stores.open_attempts, one.stores.open_groups, one.stores.deadlines):
        assert (await subjects.count()).count == 0


def a_log(horizon_s: float) -> list[Event]:
    """Two groups with calls, ends, settlements, rewards and late rewards; some attempts fail."""
    first = one_rollout(0, 1.0, size=3, turns=3, horizon_s=horizon_s)
    second = one_rollout(1, 0.25, size=3, horizon_s=horizon_s)
    return [
        *first,
        *second,
        *one_rollout(2, 0.0, size=3, attempt=0, final=False, failure=FailureClass.TIMEOUT),
        *one_rollout(2, None, size=3, attempt=1, failure=FailureClass.AGENT_EXCEPTION),
        *one_rollout(0, 1.0, size=2, task="other", group_id="h", policy="q"),
        *one_rollout(1, 0.5, size=2, task="other", group_id="h"),
        *late_rewards(first, 0.5, -0.25),
        *late_rewards(second, 2.0),
    ]


EVENTS, LATE_EVENTS = a_log(0.0), a_log(HOUR_S)
LOG, LATE_LOG = delivered(EVENTS), delivered(LATE_EVENTS)


async def streamed(one: CreditLoop, stream: list[Delivered[Event]], data: st.DataObject) -> None:
    """All of `stream` in batches of any size; records are read back at any time."""
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        await one.handlers.on_batch(stream[:size])
        stream = stream[size:]
        if data.draw(st.booleans()):
            await one.read_back()
    await one.read_back()


def shuffled(data: st.DataObject, log: list[Delivered[Event]]) -> list[Delivered[Event]]:
    order = data.draw(st.permutations(range(len(log))))
    again = data.draw(st.lists(st.integers(0, len(log) - 1), max_size=20))
    return [log[n] for n in [*order, *again]]


def newest(publisher: CreditPublisher) -> list[bytes]:
    """The bytes of the newest revision of every group."""
    events = [one.event for one in publisher.published]
    revisions = {(e.policy, e.group_id): 0 for e in events}  # type: ignore[attr-defined]
    for event in events:
        key = (event.policy, event.group_id)  # type: ignore[attr-defined]
        revisions[key] = max(revisions[key], event.revision)  # type: ignore[attr-defined]
    kept = [e.revision == revisions[e.policy, e.group_id] for e in events]  # type: ignore[attr-defined]
    return sorted(value for value, keep in zip(publisher.values, kept, strict=True) if keep)


@settings(max_examples=20, deadline=None)
@given(st.data())
async def test_any_order_duplication_and_batching_gives_the_same_bytes(data: st.DataObject) -> None:
    """Two groups with calls, ends, settlements, rewards, records that are read back; late rewards are let go."""
    straight, other = loop(CreditSection()), loop(CreditSection())
    await feed(straight, EVENTS)
    await streamed(other, shuffled(data, LOG), data)
    assert len(straight.publisher.groups) == 3
    assert sorted(other.publisher.values) == sorted(straight.publisher.values)


@settings(max_examples=20, deadline=None)
@given(st.data())
async def test_any_order_of_late_rewards_gives_the_same_last_revision(data: st.DataObject) -> None:
    straight, other = loop(CreditSection()), loop(CreditSection())
    await feed(straight, LATE_EVENTS)
    await streamed(other, shuffled(data, LATE_LOG), data)
    assert {group.revision for group in straight.publisher.groups if group.group_id == "g"} == {3}
    assert newest(other.publisher) == newest(straight.publisher)


@settings(max_examples=20, deadline=None)
@given(st.data())
async def test_a_replay_gives_the_same_bytes_whenever_the_records_are_read(data: st.DataObject) -> None:
    log = [*LOG, *delivered([record(0, 1), record(0, 1, 2)])]
    straight, other = loop(RECORDED), loop(RECORDED)
    await straight.on_batch(log)
    stream = shuffled(data, log)
    first = next(n for n, one in enumerate(stream) if isinstance(one.event, GroupClosed))
    stream[first] = log[-2]  # of one key, the log has an order
    await streamed(other, [*stream, log[-1]], data)
    assert [group.left_out for group in straight.publisher.groups] == [{}]
    assert sorted(other.publisher.values) == sorted(straight.publisher.values)
