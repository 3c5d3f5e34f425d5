"""Groups are trained whole, once, in arrival order; nothing that is still needed is passed over on resume."""

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leyden.events import GroupCredited, SequenceCredited
from leyden.trainer.core.batching import BatchRules, GroupBuffer
from trainer_fakes import new_batch

Make = Callable[..., SequenceCredited]
Close = Callable[..., GroupCredited]
TWO = BatchRules(policy="policy", groups_per_step=2)


def feed(
    buffer: GroupBuffer, records: list[SequenceCredited | GroupCredited], partition: int = 0, start: int = 0
) -> None:
    for offset, event in enumerate(records, start):
        buffer.add(event, partition, offset)


def whole(
    sequence: Make, closing: Close, name: str, size: int = 2, **options: object
) -> list[SequenceCredited | GroupCredited]:
    members = [sequence([1, 2, 3], [(1, 3)], group=name, index=i, of=size, **options) for i in range(size)]
    return [*members, closing(name, size)]


def test_a_batch_is_made_of_whole_groups_in_arrival_order(sequence: Make, closing: Close) -> None:
    buffer = GroupBuffer(TWO)
    first, second = whole(sequence, closing, "a"), whole(sequence, closing, "b")
    feed(buffer, [first[0], *second])
    assert new_batch(buffer, 0) is None
    feed(buffer, first[1:], start=4)
    batch = new_batch(buffer, 0)
    assert batch is not None and [group.group_id for group in batch] == ["b", "a"]
    assert [len(group.sequences) for group in batch] == [2, 2]
    assert new_batch(buffer, 0) is None


def test_positions_stay_below_what_is_not_trained_yet(sequence: Make, closing: Close) -> None:
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=1))
    open_group = whole(sequence, closing, "open")[0]
    feed(buffer, [*whole(sequence, closing, "a"), open_group, *whole(sequence, closing, "b")])
    feed(buffer, whole(sequence, closing, "c"), partition=1)
    assert buffer.positions == {0: 0, 1: 0}
    batch = new_batch(buffer, 0)
    assert batch is not None
    assert buffer.positions == {0: 0, 1: 0}
    buffer.finish(batch)
    assert buffer.positions == {0: 3, 1: 0}


def test_a_resumed_buffer_trains_each_group_once(sequence: Make, closing: Close) -> None:
    one = BatchRules(policy="policy", groups_per_step=1)
    records = [*whole(sequence, closing, "a")[:1], *whole(sequence, closing, "b"), *whole(sequence, closing, "a")[1:]]
    buffer = GroupBuffer(one)
    feed(buffer, records)
    batch = new_batch(buffer, 0)
    assert batch is not None and batch[0].group_id == "b"
    buffer.finish(batch)
    resumed = GroupBuffer(one, buffer.positions, buffer.finished)
    feed(resumed, records[buffer.positions[0] :], start=buffer.positions[0])
    again = new_batch(resumed, 1)
    assert again is not None and again[0].group_id == "a"
    resumed.finish(again)
    assert new_batch(resumed, 2) is None
    assert resumed.positions == {0: 6}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(repeats=st.lists(st.integers(0, 5), max_size=12))
def test_redelivery_changes_nothing(sequence: Make, closing: Close, repeats: list[int]) -> None:
    records = [*whole(sequence, closing, "a"), *whole(sequence, closing, "b")]
    once, often = GroupBuffer(TWO), GroupBuffer(TWO)
    feed(once, records)
    for at in [0, 1, 2, 3, 4, *repeats, 5]:
        often.add(records[at], 0, at)
    left, right = new_batch(once, 0), new_batch(often, 0)
    assert left is not None and right is not None
    assert [[s.sequence_id for s in g.sequences] for g in left] == [[s.sequence_id for s in g.sequences] for g in right]
    once.finish(left)
    often.finish(right)
    feed(often, records)
    assert new_batch(often, 1) is None
    assert often.positions == once.positions == {0: 6}


def test_groups_that_are_too_old_are_dropped_whole_and_counted(sequence: Make, closing: Close) -> None:
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=1, max_staleness=1))
    feed(buffer, [*whole(sequence, closing, "old", version=1), *whole(sequence, closing, "new", version=3)])
    batch = new_batch(buffer, 3)
    assert batch is not None and batch[0].group_id == "new"
    assert buffer.take_dropped() == {"stale": 1}
    assert not buffer.dropped
    buffer.finish(batch)
    assert buffer.positions == {0: 6}


def test_groups_without_spread_count_unless_they_are_dropped(sequence: Make, closing: Close) -> None:
    flat = [sequence([1, 2, 3], [(1, 3)], group="flat", advantage=0.0), closing("flat", 1, zero_variance=True)]
    counting, dropping = (
        GroupBuffer(BatchRules(policy="policy", groups_per_step=1, drop_zero_variance=drop)) for drop in (False, True)
    )
    feed(counting, [*flat])
    feed(dropping, [*flat])
    assert new_batch(counting, 0) is not None
    assert new_batch(dropping, 0) is None
    assert dropping.take_dropped() == {"zero_variance": 1}
    assert dropping.positions == {0: 2}


def test_an_empty_group_counts_so_that_nobody_waits_for_it(closing: Close) -> None:
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=1))
    buffer.add(closing("nobody", 0), 0, 0)
    batch = new_batch(buffer, 0)
    assert batch is not None and batch[0].sequences == ()
    assert buffer.take_dropped() == {"empty": 1}


def test_a_malformed_sequence_spoils_its_group_only(sequence: Make, closing: Close) -> None:
    buffer = GroupBuffer(TWO)
    bad = [sequence([1, 2, 3], [(0, 9)], group="bad"), closing("bad", 1)]
    feed(buffer, [*bad, *whole(sequence, closing, "good")])
    batch = new_batch(buffer, 0)
    assert batch is not None and [len(group.sequences) for group in batch] == [0, 2]
    assert buffer.take_dropped() == {"malformed": 1}


def test_sequences_of_another_policy_are_passed_over(sequence: Make, closing: Close) -> None:
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=1))
    feed(buffer, [sequence([1, 2, 3], [(1, 3)], policy="other"), closing("g0", 1, policy="other")])
    assert new_batch(buffer, 0) is None
    assert buffer.positions == {0: 2}


def test_a_lost_record_holds_up_the_position_no_longer_than_it_may(sequence: Make, closing: Close) -> None:
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=1, incomplete_after=6))
    feed(buffer, [*whole(sequence, closing, "lost")[1:], *whole(sequence, closing, "a"), sequence([1, 2], [(1, 2)])])
    assert buffer.positions == {0: 0}
    feed(buffer, [closing("g0", 1)], start=6)
    assert buffer.take_unusable() == {"lost": "incomplete: 1 of 2 sequences"}
    assert buffer.take_dropped() == {"incomplete": 1}
    assert buffer.positions == {0: 2}, "of the next group that waits"


def test_what_comes_of_a_group_after_it_was_given_up_holds_up_nothing(sequence: Make, closing: Close) -> None:
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=9, incomplete_after=2))
    late, *rest = whole(sequence, closing, "lost")
    feed(buffer, [*rest, *whole(sequence, closing, "a")])
    assert buffer.take_dropped() == {"incomplete": 1}
    buffer.add(late, 0, 5)
    assert (buffer.waiting, buffer.positions) == (1, {0: 2})


def test_records_of_other_partitions_and_policies_age_a_group_no_other_way(sequence: Make, closing: Close) -> None:
    """The distance is between offsets of the group's own partition, whatever the records between are."""
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=1, incomplete_after=4))
    buffer.add(sequence([1, 2, 3], [(1, 3)], group="lost", of=2), 0, 0)
    feed(buffer, whole(sequence, closing, "a") * 5, partition=1)
    assert not buffer.dropped
    feed(buffer, [closing(f"other{n}", 1, policy="other") for n in range(4)], start=1)
    assert buffer.take_dropped() == {"incomplete": 1}


def test_a_complete_group_that_waits_for_its_batch_is_never_given_up(sequence: Make, closing: Close) -> None:
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=2, incomplete_after=1))
    feed(buffer, [*whole(sequence, closing, "a", size=1), *[closing("other", 1, policy="other")] * 50])
    feed(buffer, whole(sequence, closing, "b", size=1), start=52)
    batch = new_batch(buffer, 0)
    assert batch is not None and [group.group_id for group in batch] == ["a", "b"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(order=st.permutations(range(7)), torn=st.booleans())
def test_records_that_contradict_each_other_give_one_result_in_any_order(
    sequence: Make, closing: Close, order: list[int], torn: bool
) -> None:
    """Two records name three sequences and one an index beyond its own number; the others agree on two."""
    records: list[SequenceCredited | GroupCredited] = [
        sequence([1, 2, 3], [(0, 9) if torn else (1, 3)], group="a", index=0, of=2),
        sequence([1, 2, 3], [(1, 3)], group="a", index=1, of=2),
        closing("a", 2),
        sequence([4, 5, 6], [(1, 3)], group="a", index=2, of=3),
        closing("a", 3),
        sequence([7, 8, 9], [(0, 9)], group="a", index=5, of=2),
        sequence([7, 8, 9], [(0, 9)], group="a", index=0, of=3),
    ]
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=1))
    feed(buffer, [records[n] for n in order])
    batch = new_batch(buffer, 0)
    assert batch is not None
    assert (batch[0].malformed is not None) == torn
    assert [one.sequence_id for one in batch[0].sequences] == ([] if torn else ["a-0", "a-1"])
