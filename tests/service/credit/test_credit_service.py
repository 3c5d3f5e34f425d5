"""The credit service on fakes: whole groups in, whole groups out, exactly once whatever happens on the way."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credit_support import (
    T0,
    Crash,
    CreditLoop,
    CreditPublisher,
    call,
    delivered,
    finished,
    memory_stores,
    one_rollout,
    reward,
    rollout,
)
from leyden.credit.core.section import CreditSection
from leyden.credit.ports import Stores
from leyden.events import Event, FailureClass, unpack_ints
from leyden.kafka import Delivered
from leyden.state import MemoryEvidenceStore

DEFAULT = CreditSection()


def handlers(publisher: CreditPublisher, stores: Stores | None = None, rules: CreditSection = DEFAULT) -> CreditLoop:
    return CreditLoop(publisher, stores, rules)


async def run(events: list[Event], rules: CreditSection = DEFAULT) -> CreditPublisher:
    publisher = CreditPublisher()
    await handlers(publisher, rules=rules).on_batch(delivered(events))
    return publisher


async def test_a_group_is_published_when_its_last_member_is_over_and_not_before() -> None:
    publisher, stores = CreditPublisher(), memory_stores()
    service = handlers(publisher, stores)
    await service.on_batch(delivered(one_rollout(0, 1.0, size=2)))
    assert publisher.published == []
    await service.on_batch(delivered(one_rollout(1, 0.0, size=2)))
    kinds = [one.event.type for one in publisher.published]
    assert kinds == ["sequence-credited", "sequence-credited", "group-credited"]
    assert {(one.topic, one.key) for one in publisher.published} == {("transitions.v1", "p/g")}


async def test_a_sequence_says_everything_about_its_transitions() -> None:
    publisher = await run(one_rollout(0, 1.0, size=2) + one_rollout(1, 0.0, size=2))
    [zero, _] = sorted(publisher.sequences, key=lambda one: one.rollout_id != rollout(0))
    assert unpack_ints(zero.token_ids).tolist() == [0, 1, 10, 20, 7, 11, 20]
    assert [(t.start, t.end) for t in zero.transitions] == [(2, 4), (5, 7)]
    assert [t.policy_version for t in zero.transitions] == [3, 3]
    assert [t.temperature for t in zero.transitions] == [1.0, 1.0]
    assert [t.origin for t in zero.transitions] == ["model-calls.v1/0/0", "model-calls.v1/0/1"]
    assert [(t.reward, t.return_) for t in zero.transitions] == [(0.0, 1.0), (1.0, 1.0)]
    expected = 0.5 / (0.5**0.5 + 1e-6)
    assert [t.advantage for t in zero.transitions] == pytest.approx([expected, expected], abs=1e-12)
    assert (zero.rollout_reward, zero.group_sequences) == (1.0, 2)
    assert sorted(one.sequence_index for one in publisher.sequences) == [0, 1]


async def test_the_time_of_a_group_is_the_end_of_its_last_rollout_and_never_the_clock() -> None:
    publisher = await run(one_rollout(0, 1.0, size=2) + one_rollout(1, 0.0, size=2))
    assert {(one.event.event_time - T0).total_seconds() for one in publisher.published} == {61.0}


async def test_a_long_rollout_does_not_outweigh_a_short_one() -> None:
    even = await run(one_rollout(0, 1.0, size=2, turns=2) + one_rollout(1, 0.0, size=2, turns=2))
    uneven = await run(one_rollout(0, 1.0, size=2, turns=9) + one_rollout(1, 0.0, size=2, turns=1))
    advantages = [{s.rollout_id: s.transitions[0].advantage for s in one.sequences} for one in (even, uneven)]
    assert advantages[0] == advantages[1]
    assert uneven.groups[0].reward_mean == 0.5


@pytest.mark.parametrize("why", list(FailureClass))
async def test_a_failed_rollout_is_left_out_and_is_not_a_zero(why: FailureClass) -> None:
    failed = one_rollout(2, 0.0, size=3, failure=why)
    publisher = await run(one_rollout(0, 1.0, size=3) + one_rollout(1, 0.5, size=3) + failed)
    [group] = publisher.groups
    assert (group.members, group.reward_mean) == (2, 0.75)
    assert group.left_out == {rollout(2): f"failed: {why}"}
    assert rollout(2) not in {one.rollout_id for one in publisher.sequences}


async def test_a_missing_reward_is_not_filled_with_zero() -> None:
    publisher = await run(one_rollout(0, 1.0, size=2) + one_rollout(1, None, size=2))
    assert publisher.groups[0].left_out == {rollout(1): "no reward"}
    assert publisher.groups[0].reward_mean == 1.0


async def test_a_group_of_failures_is_that_of_the_policy_that_was_called() -> None:
    events = [e for n in range(2) for e in one_rollout(n, None, size=2, failure=FailureClass.TIMEOUT)]
    publisher = await run(events)
    [group] = publisher.groups
    assert (group.policy, group.sequences, group.members, group.zero_variance) == ("p", 0, 0, False)
    assert publisher.sequences == []


async def test_a_group_of_failures_in_which_nobody_was_called_is_still_counted() -> None:
    publisher = await run(one_rollout(0, None, size=1, turns=0, failure=FailureClass.RUNNER_LOST))
    assert [(group.policy, group.left_out) for group in publisher.groups] == [
        ("unknown", {rollout(0): "failed: runner_lost"})
    ]


async def test_a_group_of_failures_goes_to_the_configured_policies() -> None:
    events = one_rollout(0, None, size=1, turns=0, failure=FailureClass.TIMEOUT)
    publisher = await run(events, CreditSection(policies=["b", "a"]))
    assert [group.policy for group in publisher.groups] == ["a", "b"]


async def test_a_group_without_spread_is_published_with_advantage_zero_and_says_so() -> None:
    publisher = await run([e for n in range(3) for e in one_rollout(n, 0.3, size=3)])
    assert publisher.groups[0].zero_variance
    assert {t.advantage for one in publisher.sequences for t in one.transitions} == {0.0}


async def test_a_lone_member_has_nothing_to_be_compared_with() -> None:
    publisher = await run(one_rollout(0, 1.0, size=1))
    assert publisher.groups[0].zero_variance
    assert {t.advantage for one in publisher.sequences for t in one.transitions} == {0.0}


async def test_a_retried_attempt_never_mixes_with_the_next_one() -> None:
    given_up = one_rollout(0, 0.0, size=1, attempt=0, final=False, failure=FailureClass.TIMEOUT)
    for events in (
        given_up + one_rollout(0, 1.0, size=1, attempt=1),
        one_rollout(0, 1.0, size=1, attempt=1) + given_up,
    ):
        publisher = await run(events)
        [sequence] = publisher.sequences
        assert (sequence.attempt, sequence.rollout_reward) == (1, 1.0)
        assert {t.call_id for t in sequence.transitions} == {"task-0-1-0", "task-0-1-1"}


async def test_interleaved_sub_agents_give_two_sequences_with_one_return() -> None:
    a1, b1 = [1, 1], [2, 2]
    calls = [
        call("A1", a1, [3], at=1),
        call("B1", b1, [4], at=2),
        call("A2", [1, 1, 3, 9], [5], at=3),
        call("B2", [2, 2, 4, 9], [6], at=4),
        call("A3", [1, 1, 3, 9, 5, 9], [7], at=5),
    ]
    publisher = await run(finished(calls, [reward(1.0)]))
    assert [[t.call_id for t in one.transitions] for one in publisher.sequences] == [["A1", "A2", "A3"], ["B1", "B2"]]
    assert [one.rollout_reward for one in publisher.sequences] == [1.0, 1.0]


async def test_an_overlong_rollout_still_counts_in_the_baseline() -> None:
    publisher = await run(
        one_rollout(0, 1.0, size=2, turns=9) + one_rollout(1, 0.0, size=2, turns=1),
        CreditSection(max_sequence_tokens=10),
    )
    [group] = publisher.groups
    assert group.left_out == {rollout(0): "too long: over 10 tokens"}
    assert (group.members, group.sequences, group.reward_mean) == (2, 1, 0.5)
    assert publisher.sequences[0].transitions[0].advantage < 0


async def test_each_policy_has_a_group_of_its_own() -> None:
    publisher = await run(one_rollout(0, 1.0, size=2, policy="a") + one_rollout(1, 0.0, size=2, policy="b"))
    assert [(g.policy, g.sequences, g.left_out) for g in publisher.groups] == [
        ("a", 1, {rollout(1): "no policy call"}),
        ("b", 1, {rollout(0): "no policy call"}),
    ]
    assert len({one.event.event_id for one in publisher.published}) == 4


async def test_a_call_of_no_rollout_changes_nothing() -> None:
    stray = call("stray", [1], [2]).model_copy(update={"rollout_id": None})
    assert (await run([stray])).published == []


async def test_redelivered_records_publish_nothing_after_the_group_is_closed() -> None:
    publisher, stores = CreditPublisher(), memory_stores()
    batch = delivered(one_rollout(0, 1.0, size=1))
    await handlers(publisher, stores).on_batch(batch)
    before = publisher.values
    await handlers(publisher, stores).on_batch(batch)
    assert publisher.values == before


@pytest.mark.parametrize("crash_at", [1, 2, 3])
async def test_a_crash_after_publishing_publishes_the_same_bytes_again(crash_at: int) -> None:
    """Killed once the record (1), the sequences (2) or also the group (3) were in Kafka, and nothing was let go."""
    batch = delivered(one_rollout(0, 1.0, size=2) + one_rollout(1, 0.0, size=2))
    stores, dying = memory_stores(), CreditPublisher(crash_at)
    next_life = CreditPublisher(log=dying.log)
    with pytest.raises(Crash):
        await handlers(dying, stores).on_batch(batch)
    await handlers(next_life, stores).on_batch(batch)
    assert dying.values == next_life.values[: len(dying.values)]
    assert len(next_life.groups) == 1


class DyingStore(MemoryEvidenceStore):
    """A store whose n-th write is done, after which the process dies."""

    def __init__(self, dies_after: int) -> None:
        super().__init__()
        self.left = dies_after

    async def add(self, items: Any) -> set[str]:
        closed = await super().add(items)
        self._tick()
        return closed

    async def close(self, subjects: Any) -> None:
        await super().close(subjects)
        self._tick()

    async def keep(self, subjects: Any, for_s: float) -> None:
        await super().keep(subjects, for_s)
        self._tick()

    def _tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash


@pytest.mark.parametrize("store", ["attempts", "groups"])
@pytest.mark.parametrize("write", range(1, 10))
@pytest.mark.parametrize("horizon_s", [0.0, 60.0])
async def test_a_kill_after_any_write_loses_no_group_and_doubles_none(store: str, write: int, horizon_s: float) -> None:
    """Two batches; the process dies after a write, starts again, and the batch that was not committed comes again."""
    stores, publisher = memory_stores(), CreditPublisher()
    dying: dict[str, Any] = {store: DyingStore(write)}
    stores = replace(stores, **dying)
    rollouts = (one_rollout(n, 1.0 - n, size=2, horizon_s=horizon_s) for n in range(2))
    for batch in map(delivered, rollouts):
        try:
            await handlers(publisher, stores).on_batch(batch)
        except Crash:
            await handlers(publisher, stores).on_batch(batch)
    assert len({one.event.event_id for one in publisher.published}) == 3
    assert len(set(publisher.values)) == 3, "what is published twice is the same, byte for byte"


def a_varied_log() -> list[Delivered[Event]]:
    events = [
        *one_rollout(0, 1.0, size=4, turns=3),
        *one_rollout(1, 0.25, size=4, turns=1),
        *one_rollout(2, None, size=4, failure=FailureClass.AGENT_EXCEPTION),
        *one_rollout(3, 0.0, size=4, attempt=0, final=False, failure=FailureClass.TIMEOUT),
        *one_rollout(3, 0.5, size=4, attempt=1),
        *one_rollout(0, 1.0, size=1, task="other", group_id="h", policy="q"),
    ]
    return delivered(events)


LOG = a_varied_log()


@settings(max_examples=60, deadline=None)
@given(st.data())
async def test_any_order_duplication_and_batching_gives_the_same_bytes(data: st.DataObject) -> None:
    straight, shuffled = CreditPublisher(), CreditPublisher()
    await handlers(straight).on_batch(LOG)
    order = data.draw(st.permutations(range(len(LOG))))
    again = data.draw(st.lists(st.integers(0, len(LOG) - 1), max_size=20))
    stream = [LOG[n] for n in [*order, *again]]
    service = handlers(shuffled)
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        await service.on_batch(stream[:size])
        stream = stream[size:]
    assert sorted(shuffled.values) == sorted(straight.values)
    for group in straight.groups:
        mine = [one.event for one in shuffled.published if one.event.group_id == group.group_id]  # type: ignore[attr-defined]
        assert [event.type for event in mine] == ["sequence-credited"] * group.sequences + ["group-credited"]
        assert [event.sequence_index for event in mine[:-1]] == list(range(group.sequences))  # type: ignore[attr-defined]


def test_the_run_file_refuses_what_credit_does_not_know() -> None:
    for wrong in (
        {"strategy": "gut feeling"},
        {"advantage": "gprp"},
        {"incomplete": "guess"},
        {"stratgy": "identical"},
    ):
        with pytest.raises(ValueError):
            CreditSection.model_validate(wrong)
