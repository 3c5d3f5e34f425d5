"""The trainer's handler with fakes: what is stepped, saved and told, and what a kill or a fault at any point leaves."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer_support import FakeConsumer, consumer_of, records_of
from leyden.events import (
    CheckpointSaved,
    Event,
    SequenceCredited,
    TrainingStepCompleted,
    pack_floats,
)
from leyden.events.codec import CHECKPOINTS, TRAINING_BATCHES, TRAINING_METRICS, TRANSITIONS
from leyden.kafka import Delivered, Retry
from leyden.kafka.liveness import Heartbeat
from leyden.kafka.subscriber import FATAL_EXIT
from leyden.trainer.core.finished import REMEMBERED_GROUPS
from leyden.trainer.core.progress import SavedCheckpoint
from leyden.trainer.topology import subscription
from trainer_fakes import LOG, Disk, Process, group


async def test_every_full_batch_is_stepped_saved_and_told() -> None:
    process = Process(Disk())
    await process.handler.restore()
    await process.handler.on_batch(LOG)
    assert process.training.steps == [(["g0", "g1"], 0), (["g2", "g3"], 1)]
    assert [type(event) for event in process.told] == [TrainingStepCompleted, CheckpointSaved] * 2
    step, saved = process.told[2:]
    assert isinstance(step, TrainingStepCompleted) and isinstance(saved, CheckpointSaved)
    assert (step.version, saved.version, saved.parent_version, saved.manifest_id) == (2, 2, 1, step.event_id)
    assert step.manifest.sequence_ids == ["g2-0", "g3-0"]
    assert step.manifest.origins == ["model-calls.v1/0/4", "model-calls.v1/0/6"]
    assert step.manifest.positions == {"transitions.v1/0": 8}
    assert {(o.topic, o.key) for o in process.publisher.published} == {
        (TRAINING_BATCHES, "policy"),
        (TRAINING_METRICS, "policy"),
        (CHECKPOINTS, "policy"),
    }


async def test_the_first_start_reads_from_the_beginning() -> None:
    process = Process(Disk())
    await process.handler.restore()
    assert process.handler.positions == {}
    assert process.told == []


@pytest.mark.parametrize("killed_after", range(len(LOG) + 1))
async def test_a_kill_at_any_record_changes_nothing(killed_after: int) -> None:
    disk = Disk()
    first = Process(disk)
    await first.handler.restore()
    for record in LOG[:killed_after]:
        await first.handler.on_batch([record])
    second = Process(disk, first.recorded)
    await second.handler.restore()
    resumed = second.handler.positions.get(0, 0)
    await second.handler.on_batch(LOG[resumed:])
    assert [saved.progress.manifest.group_ids for saved in disk] == [["g0", "g1"], ["g2", "g3"]]
    told = {event.event_id: event for event in [*first.told, *second.told]}
    assert len(told) == 4
    assert all(told[event.event_id] == event for event in [*first.told, *second.told])


async def test_events_that_a_kill_kept_back_are_told_at_the_next_start() -> None:
    disk = Disk()
    first = Process(disk)
    await first.handler.restore()
    first.publisher.refused = TRAINING_METRICS
    with pytest.raises(Retry):
        await first.handler.on_batch(LOG[:4])
    second = Process(disk, first.recorded)
    await second.handler.restore()
    assert second.handler.version == 1
    assert [type(event) for event in second.told] == [TrainingStepCompleted, CheckpointSaved]


@pytest.mark.parametrize("refused", [TRAINING_BATCHES, TRAINING_METRICS])
async def test_a_broker_that_was_away_delays_the_events_and_repeats_no_step(refused: str) -> None:
    process = Process(Disk())
    await process.handler.restore()
    process.publisher.refused = refused
    with pytest.raises(Retry):
        await process.handler.on_batch(LOG)
    process.publisher.refused = ""
    await process.handler.on_batch(LOG)
    assert [groups for groups, _ in process.training.steps] == [["g0", "g1"], ["g2", "g3"]]
    assert len(process.told) == 4


async def test_a_checkpoint_that_cannot_be_written_stops_the_process_and_is_neither_told_nor_committed() -> None:
    process = Process(Disk())
    await process.handler.restore()
    process.training.disk_full = True
    exits: list[int] = []
    consumer = consumer_of(subscription(process.handler, Heartbeat()), process.publisher, exits)
    whole = TopicPartition(TRANSITIONS, 0)
    committed = FakeConsumer({whole: len(LOG)})
    await consumer.place(committed, process.handler.positions)
    committed.seek(whole, len(LOG))
    with pytest.raises(OSError, match="no space left"):
        await consumer.consume(records_of(LOG), committed)
    assert exits == [FATAL_EXIT]
    assert process.told == []
    assert committed.commits == [{whole: 0}], "where it starts, and nothing of the batch"


async def test_after_the_last_step_groups_stay_in_the_log() -> None:
    disk = Disk()
    process = Process(disk, max_steps=1)
    await process.handler.restore()
    await process.handler.on_batch(LOG[:4])
    await process.handler.on_batch(LOG[4:])
    assert len(disk) == 1
    longer = Process(disk, process.recorded, max_steps=2)
    await longer.handler.restore()
    await longer.handler.on_batch(LOG[longer.handler.positions[0] :])
    assert longer.training.steps == [(["g2", "g3"], 1)]


REVISED = ["g0", "g1'", "g0", "g0'", "g2", "g1", "g2'", "g3", "g0''", "g4", "g3'", "g5"]
REVISED_LOG = [
    record
    for index, name in enumerate(REVISED)
    for record in group(name.rstrip("'"), 2 * index, revision=name.count("'"))
]
"""A prime is a revision. g1 comes at revision 1 first, g2' while g2 waits; g0', g0'' and g3' come after training."""


async def unbroken(delivered: Sequence[Delivered[Event]], **settings: Any) -> list[SavedCheckpoint]:
    process = Process(Disk(), None, **settings)
    await process.handler.restore()
    await process.handler.on_batch(delivered)
    return process.training.disk


def remembered(disk: Sequence[SavedCheckpoint]) -> list[dict[str, object]]:
    """Everything that the checkpoints say of how far training is."""
    return [saved.progress.model_dump(exclude={"weights_sha256"}) for saved in disk]


async def test_a_revision_of_a_trained_group_is_counted_and_never_trained() -> None:
    disk = await unbroken(REVISED_LOG)
    trained = [saved.progress.manifest.sequence_ids for saved in disk]
    assert trained == [["g0-0", "g1-1"], ["g2-1", "g3-0"], ["g4-0", "g5-0"]]
    counted = [saved.progress.metrics.get("groups/dropped/revised_after_training", 0) for saved in disk]
    assert counted == [0, 1, 2]


@pytest.mark.parametrize("killed_after", range(len(REVISED_LOG) + 1))
async def test_a_run_killed_at_any_record_equals_an_unbroken_one_through_revisions(killed_after: int) -> None:
    """Every checkpoint in full: its batch, metrics, positions, and the groups that it remembers."""
    disk = Disk()
    first = Process(disk)
    await first.handler.restore()
    await first.handler.on_batch(REVISED_LOG[:killed_after])
    second = Process(disk, first.recorded)
    await second.handler.restore()
    await second.handler.on_batch(REVISED_LOG[second.handler.positions.get(0, 0) :])
    assert remembered(disk) == remembered(await unbroken(REVISED_LOG))


@pytest.mark.parametrize("size", [1, 3, 5])
async def test_how_records_are_handed_over_changes_no_step(size: int) -> None:
    process = Process(Disk())
    await process.handler.restore()
    for start in range(0, len(REVISED_LOG), size):
        await process.handler.on_batch(REVISED_LOG[start : start + size])
    assert remembered(process.training.disk) == remembered(await unbroken(REVISED_LOG))


async def test_a_step_that_changed_nothing_makes_no_version_and_its_groups_are_not_trained() -> None:
    process = Process(Disk())
    await process.handler.restore()
    flat = [*group("flat0", 0), *group("flat1", 2)]
    await process.handler.on_batch([*flat, *group("g0", 4), *group("g1", 6)])
    skipped, step, saved = process.told
    assert isinstance(skipped, TrainingStepCompleted) and isinstance(step, TrainingStepCompleted)
    assert isinstance(saved, CheckpointSaved)
    assert (skipped.step, skipped.version, skipped.metrics["groups/dropped/no_signal"]) == (1, 0, 2.0)
    assert (step.step, step.version) == (2, 1)
    assert (saved.version, saved.parent_version) == (1, 0)
    assert process.training.steps == [(["flat0", "flat1"], 0), (["g0", "g1"], 0)]
    assert process.handler.version == 1


async def test_a_late_reward_brings_a_group_of_a_skipped_step_back() -> None:
    process = Process(Disk(), groups_per_step=1)
    await process.handler.restore()
    await process.handler.on_batch([*group("flat0", 0), *group("g0", 2), *group("flat0", 4, revision=1)])
    assert [names for names, _ in process.training.steps] == [["flat0"], ["g0"], ["flat0"]]


SKIPPING = ["g0", "g1", "flat0", "flat1", "flat2", "flat3", "g2", "g3", "flat4", "flat5"]
SKIPPING_LOG = [record for index, name in enumerate(SKIPPING) for record in group(name, 2 * index)]


@pytest.mark.parametrize("killed_after", range(len(SKIPPING_LOG) + 1))
async def test_a_run_killed_at_any_record_equals_an_unbroken_one_through_skipped_steps(killed_after: int) -> None:
    disk = Disk()
    first = Process(disk)
    await first.handler.restore()
    await first.handler.on_batch(SKIPPING_LOG[:killed_after])
    second = Process(disk, first.recorded)
    await second.handler.restore()
    await second.handler.on_batch(SKIPPING_LOG[second.handler.positions.get(0, 0) :])
    assert remembered(disk) == remembered(await unbroken(SKIPPING_LOG))
    told = {event.event_id: event for event in [*first.told, *second.told]}
    assert all(told[event.event_id] == event for event in [*first.told, *second.told])
    assert sorted(e.version for e in told.values() if isinstance(e, CheckpointSaved)) == [1, 2]


async def test_unusable_groups_are_named_in_the_next_step() -> None:
    process = Process(Disk(), groups_per_step=1, incomplete_after=3)
    await process.handler.restore()
    lost, *_ = group("lost", 0)
    bad, closing = group("bad", 1)
    assert isinstance(bad.event, SequenceCredited)
    torn = bad.event.model_copy(update={"behaviour_logprobs": pack_floats([0, -1, -9999])})
    await process.handler.on_batch([lost, replace(bad, event=torn), closing, *group("g0", 3)])
    steps = [event for event in process.told if isinstance(event, TrainingStepCompleted)]
    assert [step.unusable for step in steps] == [
        {"bad": "malformed: sequence 0: behaviour logprob -9999 of action 1:3 is no sampled token's"},
        {"lost": "incomplete: 1 of 1 sequences without the group's last record"},
    ]
    assert steps[1].metrics["groups/dropped/incomplete"] == 1.0
    assert steps[1].manifest.positions == {"transitions.v1/0": 5}


async def test_one_lost_record_makes_a_restart_train_nothing_twice() -> None:
    """More groups than are remembered below the position, none of which may be forgotten while it is pinned."""
    disk = Disk()
    log = group("lost", 0)[1:] + [
        record for n in range(REMEMBERED_GROUPS + 2_000) for record in group(f"g{n}", 2 + 2 * n)
    ]
    first = Process(disk, groups_per_step=2_000, incomplete_after=10 * len(log))
    await first.handler.restore()
    await first.handler.on_batch(log)
    second = Process(disk, first.recorded, groups_per_step=2_000, incomplete_after=10 * len(log))
    await second.handler.restore()
    assert second.handler.positions == {0: 1}, "the position is pinned"
    await second.handler.on_batch(log)
    assert second.training.steps == []


async def test_the_credit_service_is_chosen_by_its_name() -> None:
    both = [*group("g0", 0), *group("g0", 2, credit="dense"), *group("g1", 4, credit="dense")]
    assert await unbroken(both) == []
    [saved] = await unbroken(both, credit="dense")
    assert saved.progress.manifest.group_ids == ["g0", "g1"]


async def test_a_group_published_again_later_is_trained_once() -> None:
    process = Process(Disk())
    await process.handler.restore()
    await process.handler.on_batch(LOG[:4])
    await process.handler.on_batch([*group("g0", 100), *group("g1", 102)])
    assert len(process.training.steps) == 1


def test_settings_without_a_run_file_do_not_load_torch() -> None:
    import subprocess
    import sys

    code = "import sys, leyden.trainer.app; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False).returncode
        == 0
    )


def with_nothing(kind: str, name: str, offset: int) -> list[Delivered[Event]]:
    """A group with nothing to train, as credit publishes it."""
    sequence, closing = group(name, offset)
    assert isinstance(sequence.event, SequenceCredited)
    if kind == "flat":
        level = [one.model_copy(update={"advantage": 0.0}) for one in sequence.event.transitions]
        event = sequence.event.model_copy(update={"transitions": level})
        closed = closing.event.model_copy(update={"zero_variance": True})
        return [replace(sequence, event=event), replace(closing, event=closed)]
    left_out = {name: kind}
    return [
        replace(closing, event=closing.event.model_copy(update={"sequences": 0, "members": 0, "left_out": left_out}))
    ]


NOTHING = ["flat", "validation", "failed: agent", "no reward", "no outcome"]


@pytest.mark.parametrize("kind", NOTHING)
async def test_groups_with_nothing_to_train_make_no_step_and_no_version(kind: str) -> None:
    process = Process(Disk(), groups_per_step=2)
    await process.handler.restore()
    await process.handler.on_batch([one for n in range(8) for one in with_nothing(kind, f"n{n}", 2 * n)])
    assert (process.training.steps, process.training.disk, process.recorded, process.told) == ([], [], [], [])
    await process.handler.on_batch([one for n in range(2) for one in group(f"g{n}", 20 + 2 * n)])
    [saved] = process.training.disk
    assert (saved.progress.step, saved.progress.version, saved.progress.manifest.group_ids) == (1, 1, ["g0", "g1"])
    dropped = {name: count for name, count in saved.progress.metrics.items() if name.startswith("groups/dropped/")}
    reason = {"flat": "no_signal", "validation": "validation"}.get(kind, "empty")
    assert dropped == {f"groups/dropped/{reason}": 8.0}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*NOTHING, "good", "good"]), max_size=20), st.integers(1, 4), st.integers(0, 20))
async def test_every_step_has_something_to_train_and_no_validation_group(
    kinds: list[str], per_step: int, kill: int
) -> None:
    records = [
        one
        for n, kind in enumerate(kinds)
        for one in (group(f"{kind}-{n}", 2 * n) if kind == "good" else with_nothing(kind, f"{kind}-{n}", 2 * n))
    ]
    disk = Disk()
    first = Process(disk, groups_per_step=per_step)
    await first.handler.restore()
    await first.handler.on_batch(records[:kill])
    second = Process(disk, first.recorded, groups_per_step=per_step)
    await second.handler.restore()
    resumed = second.handler.positions.get(0, 0)
    await second.handler.on_batch([one for one in records if one.offset >= resumed])
    batches = [saved.progress.manifest.group_ids for saved in disk]
    assert all(any(name.startswith("good") for name in batch) for batch in batches)
    assert not any(name.startswith("validation") for batch in batches for name in batch)
    assert [saved.progress.version for saved in disk] == list(range(1, len(disk) + 1))
    trained = sum(name.startswith("good") for batch in batches for name in batch)
    assert trained > kinds.count("good") - per_step, "none is lost: what is left waits for a batch"


async def test_a_control_run_makes_its_steps_without_signal() -> None:
    process = Process(Disk(), groups_per_step=1, advantage_scale=0.0)
    await process.handler.restore()
    await process.handler.on_batch(group("g", 0))
    assert process.training.steps == [(["g"], 0)]
