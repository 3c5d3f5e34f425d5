"""A group is trained once, at the newest revision that is complete by then; a resumed buffer forms the same batches."""

from collections.abc import Callable, Collection

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leyden.events import GroupCredited, SequenceCredited
from leyden.trainer.core.batching import BatchRules, Dropped, GroupBuffer
from leyden.trainer.core.revisions import ReadyGroup
from trainer_fakes import new_batch

Record = SequenceCredited | GroupCredited
Make = Callable[..., SequenceCredited]
Close = Callable[..., GroupCredited]
ONE = BatchRules(policy="policy", groups_per_step=1)
TWO = BatchRules(policy="policy", groups_per_step=2)


class Log:
    """Records of groups in one partition."""

    def __init__(self, sequence: Make, closing: Close) -> None:
        self._sequence = sequence
        self._closing = closing

    def group(self, name: str, revision: int = 0, size: int = 2, credit: str = "", **options: object) -> list[Record]:
        flat = bool(options.pop("zero_variance", False))
        spans = options.pop("spans", [(1, 3)])
        about = {"revision": revision, "credit": credit}
        members = [
            self._sequence([1, 2, 3], spans, group=name, index=i, of=size, **options).model_copy(
                update={"event_id": f"{name}-{i}-r{revision}", **about}
            )
            for i in range(size)
        ]
        return [*members, self._closing(name, size, zero_variance=flat).model_copy(update=about)]


def feed(buffer: GroupBuffer, records: list[Record], start: int = 0) -> None:
    for offset, event in enumerate(records, start):
        buffer.add(event, 0, offset)


def taken(batch: list[ReadyGroup] | None) -> list[tuple[str, int]] | None:
    return None if batch is None else [(group.group_id, group.revision) for group in batch]


def test_a_newer_revision_takes_the_place_of_the_one_that_waits(sequence: Make, closing: Close) -> None:
    log, buffer = Log(sequence, closing), GroupBuffer(TWO)
    feed(buffer, [*log.group("a"), *log.group("a", 1), *log.group("b")])
    batch = new_batch(buffer, 0)
    assert taken(batch) == [("a", 1), ("b", 0)]
    assert batch is not None and [s.sequence_id for s in batch[0].sequences] == ["a-0-r1", "a-1-r1"]
    buffer.finish(batch)
    assert buffer.positions == {0: 9}


def test_a_revision_keeps_its_groups_place_in_the_order(sequence: Make, closing: Close) -> None:
    log, buffer = Log(sequence, closing), GroupBuffer(BatchRules(policy="policy", groups_per_step=3))
    feed(buffer, [*log.group("a"), *log.group("b"), *log.group("a", 1), *log.group("c")])
    assert taken(new_batch(buffer, 0)) == [("a", 1), ("b", 0), ("c", 0)]


def test_until_all_of_a_revision_is_here_the_older_one_is_trained(sequence: Make, closing: Close) -> None:
    log, buffer = Log(sequence, closing), GroupBuffer(TWO)
    newer = log.group("a", 1)
    feed(buffer, [*log.group("a"), *newer[:2], *log.group("b")])
    batch = new_batch(buffer, 0)
    assert taken(batch) == [("a", 0), ("b", 0)]
    assert batch is not None
    buffer.finish(batch)
    feed(buffer, newer[2:], start=8)
    assert new_batch(buffer, 1) is None
    assert buffer.take_dropped() == {"revised_after_training": 1}
    assert buffer.positions == {0: 9}, "what is left of a revision that came too late holds nothing up"


def test_sequences_of_two_revisions_are_never_in_one_group(sequence: Make, closing: Close) -> None:
    log, buffer = Log(sequence, closing), GroupBuffer(ONE)
    old, new = log.group("a"), log.group("a", 1)
    feed(buffer, [old[0], new[1], old[2]])
    assert new_batch(buffer, 0) is None
    feed(buffer, [old[1]], start=3)
    assert taken(new_batch(buffer, 0)) == [("a", 0)]


def test_an_older_revision_that_comes_again_changes_nothing(sequence: Make, closing: Close) -> None:
    log, buffer = Log(sequence, closing), GroupBuffer(TWO)
    feed(buffer, [*log.group("a", 1), *log.group("a"), *log.group("b")])
    assert taken(new_batch(buffer, 0)) == [("a", 1), ("b", 0)]


def test_each_revision_after_training_is_counted_once_however_often_it_comes(sequence: Make, closing: Close) -> None:
    log, buffer = Log(sequence, closing), GroupBuffer(ONE)
    feed(buffer, log.group("a"))
    batch = new_batch(buffer, 0)
    assert batch is not None
    buffer.finish(batch)
    for _ in range(2):
        feed(buffer, [*log.group("a", 1), *log.group("a", 2)], start=3)
    assert buffer.dropped == {"revised_after_training": 2}
    resumed = GroupBuffer(ONE, buffer.positions, buffer.finished)
    feed(resumed, [*log.group("a"), *log.group("a", 1), *log.group("a", 2)])
    assert not resumed.dropped
    assert new_batch(resumed, 1) is None


def test_a_newer_revision_that_cannot_be_used_leaves_the_older_one(sequence: Make, closing: Close) -> None:
    log, buffer = Log(sequence, closing), GroupBuffer(TWO)
    bad = log.group("a", 1, spans=[(0, 9)])
    feed(buffer, [*log.group("a"), *bad, *bad, *log.group("b")])
    batch = new_batch(buffer, 0)
    assert taken(batch) == [("a", 0), ("b", 0)]
    assert buffer.take_dropped() == {"malformed": 1}
    assert batch is not None
    buffer.finish(batch)
    resumed = GroupBuffer(TWO, {}, buffer.finished)
    feed(resumed, [*log.group("a"), *bad])
    assert not resumed.dropped, "what was counted before the checkpoint is not counted after it"


def test_a_good_revision_mends_a_group_that_could_not_be_used(sequence: Make, closing: Close) -> None:
    log, buffer = Log(sequence, closing), GroupBuffer(TWO)
    feed(buffer, [*log.group("a", spans=[(0, 9)]), *log.group("a", 1), *log.group("b")])
    assert taken(new_batch(buffer, 0)) == [("a", 1), ("b", 0)]
    assert not buffer.dropped


def test_a_late_reward_that_breaks_the_tie_brings_a_dropped_group_back(sequence: Make, closing: Close) -> None:
    log = Log(sequence, closing)
    rules = BatchRules(policy="policy", groups_per_step=1, drop_zero_variance=True)
    buffer = GroupBuffer(rules)
    feed(buffer, log.group("a", zero_variance=True, advantage=0.0))
    assert new_batch(buffer, 0) is None
    assert buffer.take_dropped() == {"zero_variance": 1}
    resumed = GroupBuffer(rules, buffer.positions, buffer.finished)
    feed(resumed, log.group("a", 1), start=3)
    batch = new_batch(resumed, 0)
    assert taken(batch) == [("a", 1)]
    assert batch is not None
    resumed.finish(batch)
    feed(resumed, log.group("a", 2), start=6)
    assert new_batch(resumed, 1) is None
    assert resumed.dropped == {"revised_after_training": 1}


def test_a_dropped_group_is_needed_from_the_first_record_of_what_comes_next_of_it(
    sequence: Make, closing: Close
) -> None:
    log = Log(sequence, closing)
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=1, drop_zero_variance=True))
    flat, newer = log.group("a", zero_variance=True), log.group("a", 1)
    feed(buffer, [*flat[:2], newer[0], flat[2]])
    assert new_batch(buffer, 0) is None
    assert buffer.positions == {0: 2}
    feed(buffer, newer[1:], start=4)
    assert taken(new_batch(buffer, 0)) == [("a", 1)]


def test_a_revision_without_spread_takes_the_older_one_out(sequence: Make, closing: Close) -> None:
    log = Log(sequence, closing)
    buffer = GroupBuffer(BatchRules(policy="policy", groups_per_step=2, drop_zero_variance=True))
    feed(buffer, [*log.group("a"), *log.group("a", 1, zero_variance=True), *log.group("b")])
    assert new_batch(buffer, 0) is None
    assert (buffer.waiting, buffer.positions) == (1, {0: 6})


def test_only_the_credit_service_that_was_asked_for_is_listened_to(sequence: Make, closing: Close) -> None:
    log = Log(sequence, closing)
    records = [*log.group("a", size=1), *log.group("a", 3, size=2, credit="dense")]
    for credit, expected in (("", [("a", 0)]), ("dense", [("a", 3)]), ("other", None)):
        buffer = GroupBuffer(BatchRules(policy="policy", credit=credit, groups_per_step=1))
        feed(buffer, records)
        assert taken(new_batch(buffer, 0)) == expected
        assert not buffer.dropped


class Run:
    """A life of the trainer as far as batches go: each is formed at the record that fills it, then checkpointed."""

    def __init__(self, rules: BatchRules, without_signal: Collection[tuple[str, int]] = ()) -> None:
        self.rules = rules
        self.without_signal = without_signal
        """Revisions of groups of which a batch makes no step."""
        self.buffer = GroupBuffer(rules)
        self.steps: list[tuple[object, ...]] = []
        self.trained: list[str] = []
        self.saved: tuple[dict[int, int], object] = ({}, None)

    def read(self, records: list[Record], start: int) -> None:
        for offset, record in enumerate(records[start:], start):
            self.buffer.add(record, 0, offset)
            while (batch := new_batch(self.buffer, len(self.steps))) is not None:
                skipped = all((group.group_id, group.revision) in self.without_signal for group in batch)
                untrained = {g.group_id: Dropped.NO_SIGNAL for g in batch if g.sequences} if skipped else {}
                self.buffer.finish(batch, untrained)
                self.trained += [g.group_id for g in batch if g.sequences and g.group_id not in untrained]
                dropped = dict(self.buffer.take_dropped())
                self.saved = (self.buffer.positions, self.buffer.finished)
                self.steps.append((taken(batch), dropped, *self.saved))

    def die(self) -> int:
        """Start again from the checkpoint; the offset to read on from."""
        positions, finished = self.saved
        self.buffer = GroupBuffer(self.rules, positions, finished)  # type: ignore[arg-type]
        return positions.get(0, 0)


KINDS = ["good", "good", "flat", "bad", "lost 0", "lost 1", "lost 2", "skipped"]
revised = st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 2), st.sampled_from(KINDS))


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(revised, min_size=1, max_size=14, unique_by=lambda one: one[:2]),
    st.randoms(use_true_random=False),
    st.lists(st.integers(0, 60), max_size=4),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([1, 3, 8, 1000]),
    st.sampled_from([0, 1, 2, 1000]),
)
def test_a_run_that_was_killed_makes_the_steps_of_an_unbroken_one(
    sequence: Make,
    closing: Close,
    spec: list,
    random: object,
    kills: list[int],
    per_step: int,
    drop: bool,
    incomplete_after: int,
    remembered: int,
) -> None:
    """Through revisions, malformed groups, lost records and skipped steps, however few groups are remembered."""
    log = Log(sequence, closing)
    queues = []
    for name, revision, kind in spec:
        spans = [(0, 9)] if kind == "bad" else [(1, 3)]
        queues.append(log.group(name, revision, zero_variance=kind == "flat", spans=spans))
        if kind.startswith("lost"):
            del queues[-1][int(kind[-1])]
    records = interleaved(queues, random)
    rules = BatchRules(
        policy="policy", groups_per_step=per_step, drop_zero_variance=drop, max_staleness=4,
        incomplete_after=incomplete_after, remembered_groups=remembered,
    )  # fmt: skip
    skipped = {(name, revision) for name, revision, kind in spec if kind == "skipped"}
    unbroken, killed = Run(rules, skipped), Run(rules, skipped)
    unbroken.read(records, 0)
    at = 0
    for kill in sorted(kills):
        if at < kill < len(records):
            killed.read(records[:kill], at)
            at = killed.die()
    killed.read(records, at)
    assert killed.steps == unbroken.steps
    assert (killed.buffer.positions, killed.buffer.finished) == (unbroken.buffer.positions, unbroken.buffer.finished)
    if remembered == 1000:
        assert len(unbroken.trained) == len(set(unbroken.trained)), "no group is trained twice"


def interleaved(queues: list[list[Record]], random: object) -> list[Record]:
    """The records of all `queues` in one partition, each queue in its order."""
    queues = [list(queue) for queue in queues]
    records: list[Record] = []
    while queues:
        queue = random.choice(queues)  # type: ignore[attr-defined]
        records.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    return records
