"""A batch is in the log before it is trained; restarts, replays and second trainers train what the log says."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.events import BatchFormed, BatchGroup, Event, GroupCredited
from leyden.events.codec import TRAINING_BATCHES
from leyden.kafka import Delivered, Retry
from leyden.trainer.core.progress import SavedCheckpoint
from trainer_fakes import LOG, TIME, Disk, Process, group


def at_offsets(records: Iterable[Delivered[Event]]) -> list[Delivered[Event]]:
    """The records as they stand one after another in a partition."""
    return [Delivered(one.event, one.topic, one.key, 0, offset, f"o{offset}") for offset, one in enumerate(records)]


def log_of(names: Sequence[str]) -> list[Delivered[Event]]:
    """A log of groups, each named with a prime for each revision, in this order."""
    return at_offsets(record for name in names for record in group(name.rstrip("'"), 0, revision=name.count("'")))


def trained(disk: Sequence[SavedCheckpoint]) -> list[list[str]]:
    return [saved.progress.manifest.sequence_ids for saved in disk]


async def run(
    log: Sequence[Delivered[Event]], recorded: list[BatchFormed] | None = None, **settings: object
) -> Process:
    """A trainer without checkpoints that reads the whole log."""
    process = Process(Disk(), recorded, **settings)
    process.transitions.end = {0: len(log)}
    await process.handler.restore()
    await process.handler.on_batch(log)
    return process


async def test_a_batch_is_recorded_before_its_step() -> None:
    process = Process(Disk())
    await process.handler.restore()
    process.publisher.refused = TRAINING_BATCHES
    with pytest.raises(Retry):
        await process.handler.on_batch(LOG)
    assert process.training.steps == []


async def test_the_record_says_what_is_trained_and_on_what() -> None:
    process = await run(LOG)
    first, second = process.recorded
    assert [group.group_id for group in second.groups] == ["g2", "g3"]
    assert second.sequence_ids == ["g2-0", "g3-0"]
    assert (first.parent, second.parent) == ("", first.event_id)
    assert (second.step, second.version, second.groups_per_step) == (2, 1, 2)
    assert process.training.disk[-1].progress.batch_id == second.event_id


async def test_a_replay_in_another_order_trains_the_same_batches() -> None:
    live = await run(LOG)
    shuffled = at_offsets([*LOG[6:], *LOG[:6]])
    again = await run(shuffled, live.recorded)
    assert trained(again.training.disk) == trained(live.training.disk) == [["g0-0", "g1-0"], ["g2-0", "g3-0"]]
    assert [s.progress.manifest_sha256 for s in again.training.disk] == [
        s.progress.manifest_sha256 for s in live.training.disk
    ]
    assert len(again.recorded) == 2, "it records nothing that is in the log already"


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(["g0", "g1", "g2", "g3", "g4", "g5", "g6"]), st.integers(0, 14), st.integers(0, 14), st.booleans()
)
async def test_whatever_the_order_and_the_kills_every_trainer_trains_what_the_log_says(
    order: list[str], first_kill: int, second_kill: int, loses_step: bool
) -> None:
    live = await run(LOG + at_offsets(record for n in (5, 6) for record in group(f"g{n}", 0))[0:4])
    log = log_of(order)
    disk = Disk()
    recorded = list(live.recorded)
    for kill in sorted((first_kill, second_kill)):
        process = Process(disk, recorded)
        process.transitions.end = {0: len(log)}
        await process.handler.restore()
        await process.handler.on_batch(log[process.handler.positions.get(0, 0) : kill])
        if loses_step and disk:
            disk.pop()
    process = Process(disk, recorded)
    process.transitions.end = {0: len(log)}
    await process.handler.restore()
    await process.handler.on_batch(log[process.handler.positions.get(0, 0) :])
    assert trained(disk) == trained(live.training.disk)
    assert recorded == live.recorded


def in_partitions(places: Sequence[int]) -> dict[int, list[Delivered[Event]]]:
    """A log in which group `g<n>` is in partition `places[n]`."""
    log: dict[int, list[Delivered[Event]]] = defaultdict(list)
    for n, place in enumerate(places):
        for one in group(f"g{n}", 0):
            at = len(log[place])
            log[place].append(replace(one, partition=place, offset=at, origin=f"o{place}-{at}"))
    return log


def merged(
    log: Mapping[int, list[Delivered[Event]]], positions: Mapping[int, int], choose: random.Random
) -> list[Delivered[Event]]:
    """What a consumer reads from `positions` on: partitions in any order, the records of each in theirs."""
    left = {place: records[positions.get(place, 0) :] for place, records in log.items()}
    found = []
    while waiting := [place for place in sorted(left) if left[place]]:
        found.append(left[choose.choice(waiting)].pop(0))
    return found


@settings(max_examples=80)
@given(
    st.lists(st.integers(0, 3), min_size=6, max_size=8),
    st.randoms(use_true_random=False),
    st.lists(st.integers(0, 16), max_size=2),
)
async def test_partitions_in_any_order_and_kills_give_the_batches_of_the_record_which_has_the_order_of_arrival(
    places: list[int], choose: random.Random, kills: list[int]
) -> None:
    log = in_partitions(places)
    ends = {place: len(records) for place, records in log.items()}
    live = Process(Disk())
    await live.handler.restore()
    read = merged(log, {}, choose)
    await live.handler.on_batch(read)
    arrived = [f"{one.event.group_id}-0" for one in read if isinstance(one.event, GroupCredited)]
    assert trained(live.training.disk) == [arrived[n : n + 2] for n in range(0, len(arrived) // 2 * 2, 2)]
    disk, recorded = Disk(), list(live.recorded)
    for kill in [*kills, sum(ends.values())]:
        again = Process(disk, recorded)
        again.transitions.end = ends
        await again.handler.restore()
        for one in merged(log, again.handler.positions, choose)[:kill]:
            await again.handler.on_batch([one])
    assert trained(disk) == trained(live.training.disk)
    assert [saved.progress.manifest_sha256 for saved in disk] == [
        saved.progress.manifest_sha256 for saved in live.training.disk
    ]
    assert recorded == live.recorded


async def test_a_kill_between_the_record_and_the_step_trains_the_recorded_batch() -> None:
    """The groups come in another order after the restart, as they may from several partitions."""
    process = Process(Disk())
    await process.handler.restore()
    process.training.fails = True
    with pytest.raises(RuntimeError):
        await process.handler.on_batch(LOG)
    again = await run(at_offsets([*LOG[4:], *LOG[:4]]), process.recorded)
    assert trained(again.training.disk)[0] == ["g0-0", "g1-0"]


async def test_of_two_trainers_that_form_the_same_step_the_first_in_the_log_decides() -> None:
    """Also a trainer that was believed dead and wakes up."""
    recorded: list[BatchFormed] = []
    one, two = Process(Disk(), recorded), Process(Disk(), recorded)
    await one.handler.restore()
    await two.handler.restore()
    log = log_of(["g0", "g1", "g2", "g3"])
    await one.handler.on_batch(log)
    two.transitions.end = {0: len(log)}
    await two.handler.on_batch(log_of(["g3", "g2", "g1", "g0"]))
    assert trained(one.training.disk) == trained(two.training.disk) == [["g0-0", "g1-0"], ["g2-0", "g3-0"]]
    assert len(recorded) == 3, "the second trainer's own first batch does not count"


async def test_a_trainer_with_other_rules_forms_its_own_batches() -> None:
    live = await run(LOG)
    other = await run(LOG, live.recorded, groups_per_step=1)
    assert trained(other.training.disk) == [[f"g{n}-0"] for n in range(5)]
    again = await run(at_offsets(reversed(LOG)), live.recorded, groups_per_step=1)
    assert trained(again.training.disk) == trained(other.training.disk)


async def test_a_trainer_that_learns_in_another_way_trains_the_same_batches() -> None:
    live = await run(LOG)
    other = await run(at_offsets([*LOG[6:], *LOG[:6]]), live.recorded, learning_rate=1e-6, seed=5)
    assert trained(other.training.disk) == trained(live.training.disk)


async def test_the_recorded_revision_is_trained_though_a_newer_one_came_first_now() -> None:
    live = await run(log_of(["a", "b", "a'", "c", "d"]))
    assert trained(live.training.disk) == [["a-0", "b-0"], ["c-0", "d-0"]]
    again = await run(log_of(["a", "a'", "d", "c", "b"]), live.recorded)
    assert trained(again.training.disk) == trained(live.training.disk)
    counted = again.training.disk[0].progress.metrics["groups/dropped/revised_after_training"]
    assert counted == 1, "the newer revision is counted as it was"


async def test_a_revision_that_is_not_in_this_log_is_replaced_by_the_next_one() -> None:
    """A replay of credit may publish the newest revision alone."""
    live = await run(log_of(["a", "b", "a'"]))
    again = await run(log_of(["b", "a'"]), live.recorded)
    assert trained(again.training.disk) == [["a-1", "b-0"]]
    assert again.recorded[-1].replaces == again.recorded[0].event_id
    assert_steps_are_as_recorded(again)


async def test_a_batch_whose_groups_are_gone_from_the_log_is_given_up_for_a_new_one() -> None:
    live = await run(LOG)
    left = at_offsets(LOG[4:])
    process = Process(Disk(), live.recorded)
    process.transitions.end = {0: len(left)}
    await process.handler.restore()
    await process.handler.on_batch(left[:-1])
    assert process.training.steps == [], "g0 may still come"
    await process.handler.on_batch(left[-1:])
    assert trained(process.training.disk) == [["g2-0", "g3-0"]]
    again = await run(at_offsets(reversed(left)), live.recorded)
    assert trained(again.training.disk) == [["g2-0", "g3-0"]], "what was formed in its place is followed"


async def test_a_recorded_group_without_spread_now_is_trained_as_it_is_recorded() -> None:
    """With other rewards, a group may have no spread any more; its record names its sequences all the same."""
    live = await run(LOG, drop_zero_variance=True)
    flat = [
        Delivered(one.event.model_copy(update={"zero_variance": True}), one.topic, one.key, 0, one.offset, one.origin)
        if one.event.event_id == "g1-end"
        else one
        for one in LOG
    ]
    again = await run(flat, live.recorded, drop_zero_variance=True)
    assert trained(again.training.disk) == trained(live.training.disk) == [["g0-0", "g1-0"], ["g2-0", "g3-0"]]
    assert again.recorded == live.recorded


async def test_a_published_batch_that_cannot_be_read_yet_is_asked_for_again() -> None:
    process = Process(Disk())
    await process.handler.restore()
    process.batches.hidden = True
    with pytest.raises(Retry, match="cannot be read yet"):
        await process.handler.on_batch(LOG)
    assert process.training.steps == []
    process.batches.hidden = False
    await process.handler.on_batch(LOG)
    assert trained(process.training.disk) == [["g0-0", "g1-0"], ["g2-0", "g3-0"]]


async def test_checkpoints_from_before_batches_were_recorded_are_gone_on_from() -> None:
    disk = Disk()
    before = Process(disk)
    await before.handler.restore()
    await before.handler.on_batch(LOG[:4])
    old = disk[0].progress.model_dump(exclude={"batch_id"})
    disk[0] = SavedCheckpoint(disk[0].folder, type(disk[0].progress).model_validate(old), disk[0].merged, None)
    later = Process(disk)
    await later.handler.restore()
    await later.handler.on_batch(LOG[4:])
    assert trained(disk) == [["g0-0", "g1-0"], ["g2-0", "g3-0"]]
    fresh = await run(at_offsets(reversed(LOG)), later.recorded)
    assert trained(fresh.training.disk)[0] == ["g4-0", "g3-0"], "a chain that does not begin at the base model"


def hostile(batch: BatchFormed, random_: random.Random) -> BatchFormed:
    changes: list[dict[str, object]] = [
        {"groups": [BatchGroup(group_id="nobody", revision=2**70)]},
        {"groups": [*batch.groups, *batch.groups]},
        {"parent": batch.event_id},
        {"parent": "unknown"},
        {"step": 2**70, "version": 2**70},
        {"event_id": ""},
        {"policy": "other"},
    ]
    return batch.model_copy(update=random_.choice(changes) | {"event_time": TIME})


@pytest.mark.parametrize("seed", range(30))
async def test_records_of_others_stop_no_trainer(seed: int) -> None:
    random_ = random.Random(seed)
    live = await run(LOG)
    recorded = [hostile(random_.choice(live.recorded), random_) for _ in range(4)]
    again = await run(LOG, recorded)
    assert trained(again.training.disk) == trained(live.training.disk)


async def test_a_second_trainer_that_forms_the_same_first_batch_follows_what_comes_after_it() -> None:
    recorded: list[BatchFormed] = []
    log = log_of(["g0", "g1", "g2", "g3", "g4", "g5"])
    two = Process(Disk(), recorded)
    await two.handler.restore()
    one = await run(log, recorded)
    two.transitions.end = {0: len(log)}
    await two.handler.on_batch(log_of(["g0", "g1", "g4", "g5", "g2", "g3"]))
    assert trained(two.training.disk) == trained(one.training.disk)
    assert len(recorded) == 4, "the first one is in the log twice, under one id"


async def test_a_broker_that_is_away_between_two_reads_gives_no_batch_up() -> None:
    recorded: list[BatchFormed] = []
    log = log_of(["g0", "g1", "g2", "g3"])
    two = Process(Disk(), recorded)
    await two.handler.restore()
    one = await run(log, recorded)
    two.transitions.end, two.transitions.failures = {0: len(log)}, 1
    other = log_of(["g3", "g2", "g1", "g0"])
    with pytest.raises(Retry):
        await two.handler.on_batch(other)
    await two.handler.on_batch(other)
    assert trained(two.training.disk) == trained(one.training.disk)


async def test_a_group_that_comes_back_in_a_later_batch_is_trained_at_that_batchs_revision() -> None:
    """Its first batch was skipped."""
    live = await run(log_of(["flat0", "flat1", "flat0'", "flat0''", "c", "d", "e"]))
    again = await run(log_of(["d", "e", "flat0", "flat1", "flat0'", "flat0''", "c"]), live.recorded)
    assert trained(again.training.disk) == trained(live.training.disk)
    assert "flat0-2" in trained(live.training.disk)[1]


async def test_a_recorded_group_that_was_trained_here_is_left_out_and_the_chain_goes_on() -> None:
    """With other rewards, a batch that was skipped may be trained; a later revision in another batch is then late."""
    live = await run(log_of(["flat0", "flat1", "flat0'", "c", "d", "e"]))
    assert trained(live.training.disk)[1:] == [["flat0-1", "c-0"], ["d-0", "e-0"]]
    again = Process(Disk(), live.recorded)
    again.training.skips = False
    log = log_of(["flat0", "flat1", "flat0'", "c", "d", "e"])
    again.transitions.end = {0: len(log)}
    await again.handler.restore()
    await again.handler.on_batch(log)
    assert trained(again.training.disk) == [["flat0-0", "flat1-0"], ["c-0"], ["d-0", "e-0"]]
    assert_steps_are_as_recorded(again)


async def two_trainers(**settings: object) -> tuple[Process, Process]:
    """Two live trainers of one log, each with checkpoints of its own."""
    recorded: list[BatchFormed] = []
    both = Process(Disk(), recorded, **settings), Process(Disk(), recorded, **settings)
    for process in both:
        await process.handler.restore()
    return both


def assert_steps_are_as_recorded(process: Process) -> None:
    sequences = {batch.event_id: batch.sequence_ids for batch in process.recorded}
    groups = {batch.event_id: [group.group_id for group in batch.groups] for batch in process.recorded}
    for saved in process.training.disk:
        assert saved.progress.manifest.sequence_ids == sequences[saved.progress.batch_id]
        assert saved.progress.manifest.group_ids == groups[saved.progress.batch_id]


async def test_a_recorded_revision_is_trained_though_a_newer_one_came_before_its_record() -> None:
    one, two = await two_trainers()
    await one.handler.on_batch(log_of(["a", "b"]))
    log = log_of(["a", "a'", "b"])
    two.transitions.end = {0: len(log)}
    await two.handler.on_batch(log)
    assert trained(two.training.disk) == trained(one.training.disk) == [["a-0", "b-0"]]
    assert two.training.disk[0].progress.metrics["groups/dropped/revised_after_training"] == 1


def flat(records: Sequence[Delivered[Event]]) -> list[Delivered[Event]]:
    """The records of one revision, whose rewards are now all equal."""
    changed = records[-1].event.model_copy(update={"zero_variance": True})
    return [*records[:-1], replace(records[-1], event=changed)]


async def test_a_smaller_batch_is_never_trained_under_the_record_of_a_larger_one() -> None:
    """The second trainer dropped a group of the recorded batch before it read the record: it goes on with its own."""
    one, two = await two_trainers(drop_zero_variance=True)
    await one.handler.on_batch(log_of(["a", "b", "c", "d"]))
    log = at_offsets([*group("a", 0), *flat(group("a", 0, revision=1)), *log_of(["b", "d", "c"])])
    two.transitions.end = {0: len(log)}
    await two.handler.on_batch(log)
    assert trained(one.training.disk) == [["a-0", "b-0"], ["c-0", "d-0"]]
    assert trained(two.training.disk) == [["b-0", "d-0"]]
    assert_steps_are_as_recorded(two)
    restarted = Process(Disk(two.training.disk[:1]), two.recorded, drop_zero_variance=True)
    restarted.transitions.end = {0: len(log)}
    await restarted.handler.restore()
    await restarted.handler.on_batch(log[restarted.handler.positions.get(0, 0) :])
    assert trained(restarted.training.disk) == trained(two.training.disk)
    assert restarted.recorded == two.recorded


async def test_a_substitute_that_could_not_be_published_is_recorded_at_the_next_try() -> None:
    live = await run(log_of(["a", "b", "a'", "c", "d"]))
    log = log_of(["b", "a'", "d", "c"])
    again = Process(Disk(), live.recorded)
    again.transitions.end = {0: len(log)}
    await again.handler.restore()
    again.publisher.refused = TRAINING_BATCHES
    with pytest.raises(Retry):
        await again.handler.on_batch(log)
    assert again.training.steps == []
    again.publisher.refused = ""
    await again.handler.on_batch(log)
    assert trained(again.training.disk) == [["a-1", "b-0"], ["c-0", "d-0"]]
    assert_steps_are_as_recorded(again)


REVISIONS = [("a", 0), ("b", 0), ("c", 0), ("d", 0), ("e", 0), ("a", 1), ("b", 1), ("c", 1), ("a", 2)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.permutations(range(len(REVISIONS))), min_size=2, max_size=2),
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9), st.booleans()), max_size=10),
    st.sets(st.integers(0, len(REVISIONS) - 1), max_size=4),
    st.booleans(),
)
async def test_two_live_trainers_step_on_nothing_but_what_is_recorded(
    orders: list[list[int]], turns: list[tuple[int, int, bool]], flats: set[int], drops: bool
) -> None:
    """Each reads groups and revisions in an order of its own, a few records at a time, and is killed in between."""
    logs = []
    for order in orders:
        # Revisions of a group are in one partition, so every reader has them in order.
        at = {name: iter(sorted(n for n in order if REVISIONS[n][0] == name)) for name, _ in REVISIONS}
        chosen = [next(at[REVISIONS[n][0]]) for n in order]
        parts = [(n, group(REVISIONS[n][0], 0, revision=REVISIONS[n][1])) for n in chosen]
        logs.append(at_offsets(one for n, part in parts for one in (flat(part) if n in flats else part)))
    recorded: list[BatchFormed] = []
    disks = [Disk(), Disk()]
    both = [Process(disk, recorded, drop_zero_variance=drops) for disk in disks]
    read = [0, 0]
    for process in both:
        await process.handler.restore()
    for who, records, dies in [*turns, (0, 99, False), (1, 99, False)]:
        both[who].transitions.end = {0: read[who] + records}
        if dies:
            both[who] = Process(disks[who], recorded, drop_zero_variance=drops)
            await both[who].handler.restore()
            read[who] = both[who].handler.positions.get(0, 0)
        await both[who].handler.on_batch(logs[who][read[who] : read[who] + records])
        read[who] += records
    for process in both:
        assert_steps_are_as_recorded(process)
        groups = [g for saved in process.training.disk for g in saved.progress.manifest.group_ids]
        assert len(groups) == len(set(groups)), "no group is trained twice"
