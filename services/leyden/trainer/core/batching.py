"""Collects groups, forms batches of them in the order of arrival, and tracks the offsets to resume from.

A group is trained once, at the newest revision that is complete when its batch is formed. A batch is recorded when it
is formed, and a recorded one is taken as it is, whatever the order of arrival now. Records are identified by
(partition, offset). No Kafka client, no torch.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from heapq import heappop, heappush

from leyden.events import BatchFormed, GroupCredited, SequenceCredited
from leyden.trainer.core.finished import REMEMBERED_GROUPS, Finished, FinishedGroups, Place
from leyden.trainer.core.revisions import PartialRevision, ReadyGroup
from leyden.trainer.core.sequences import LARGEST_VOCABULARY, TrainSequence, to_sequence


class Dropped(StrEnum):
    """Why a group, or a revision of it, was not trained. Each is counted; those of `UNUSABLE` are also named."""

    STALE = "stale"
    """An action is older than `max_staleness` versions."""
    ZERO_VARIANCE = "zero_variance"
    """All its advantages are 0, and `drop_zero_variance` is set."""
    EMPTY = "empty"
    """It has no sequences."""
    VALIDATION = "validation"
    """Its rollouts measure the policy; it fills no batch."""
    MALFORMED = "malformed"
    """One of its sequences has a value that cannot be trained."""
    INCOMPLETE = "incomplete"
    """Some of its records did not come within `incomplete_after` records of its first one."""
    NOT_FINITE = "not_finite"
    """Its gradient is infinite or not a number."""
    NO_SIGNAL = "no_signal"
    """Every advantage of its batch is 0, so the batch made no step, or a step that changed no weight."""
    REVISED_AFTER_TRAINING = "revised_after_training"
    """The revision came after the group was trained."""


UNUSABLE = frozenset({Dropped.MALFORMED, Dropped.INCOMPLETE, Dropped.NOT_FINITE})


@dataclass(frozen=True)
class BatchRules:
    """Which groups form a batch."""

    policy: str
    credit: str = ""
    """Name of the credit service whose transitions are used."""
    groups_per_step: int = 8
    max_staleness: int | None = None
    """Groups with an action older than this many versions are dropped. None: no limit."""
    drop_zero_variance: bool = False
    """Whether groups with equal rewards (or no members) do not count towards `groups_per_step`."""
    advantage_scale: float = 1.0
    needs_signal: bool = False
    """Whether a batch without an advantage that is not 0 is dropped instead of trained."""
    vocabulary: int = LARGEST_VOCABULARY
    """Token ids of the model are below this; a group with another one is malformed."""
    incomplete_after: int = 20_000
    """Records of its partition after which a group that is still incomplete is dropped.

    Counted in offsets, not in seconds, so that the same log always drops the same groups.
    """
    remembered_groups: int = REMEMBERED_GROUPS
    """How many finished groups below the position to resume from are remembered."""


@dataclass(frozen=True)
class _Complete:
    """A complete revision and its first record."""

    first: Place
    group: ReadyGroup


class GroupBuffer:
    """Collects records into groups. Idempotent: a redelivered record changes nothing."""

    def __init__(
        self, rules: BatchRules, positions: Mapping[int, int] | None = None, finished: Finished | None = None
    ) -> None:
        self._rules = rules
        self._next = dict(positions or {})
        self._finished = FinishedGroups(finished, rules.remembered_groups)
        self._open: dict[str, dict[int, PartialRevision]] = {}
        """Group → its incomplete revisions."""
        self._complete: dict[str, dict[int, _Complete]] = {}
        """Group → its complete revisions, until it is finished: a recorded batch may have an older one."""
        self._ready: dict[str, ReadyGroup] = {}
        """Newest complete revision of each group that waits, in the order in which the groups first became complete."""
        self._spoiled: dict[str, tuple[int, str]] = {}
        """Waiting group → a newer, malformed revision of it, and why it is malformed."""
        self._pending: dict[str, Place] = {}
        """Group → its lowest record that is needed, for groups neither trained nor dropped."""
        self._oldest: dict[int, list[tuple[int, str]]] = defaultdict(list)
        """Partition → heap of the places in `_pending`; it may still have places of groups that are finished."""
        self.dropped: Counter[str] = Counter()
        """Number of groups (or revisions) not trained since the last `take_dropped`, by reason."""
        self.unusable: dict[str, str] = {}
        """Group → why it cannot be trained, since the last `take_unusable`."""

    def add(self, event: SequenceCredited | GroupCredited, partition: int, offset: int) -> None:
        """Add a record. A malformed sequence makes only its revision of the group unusable."""
        self._next[partition] = max(self._next.get(partition, 0), offset + 1)
        if (event.policy, event.credit) == (self._rules.policy, self._rules.credit):
            self._finished.note_record(event.group_id, partition, offset)
            if self._is_news(event):
                self._add_news(event, (partition, offset))
        self._drop_incomplete(partition)

    def form(self, version: int) -> list[ReadyGroup] | None:
        """A new batch for a policy at `version`, in the order of arrival; None if there is none yet.

        Drops the groups before its end that the rules leave out, and batches in which there is nothing to train. `take`
        removes it from the buffer.
        """
        while (batch := self._first_groups(version)) is not None:
            if not self._rules.needs_signal or any(group.has_signal or group.malformed for group in batch):
                return batch
            for group in batch:
                self._drop(group, Dropped.NO_SIGNAL if group.sequences else Dropped.EMPTY)
        return None

    def _first_groups(self, version: int) -> list[ReadyGroup] | None:
        """The first `groups_per_step` groups that the rules do not leave out; None if there are fewer."""
        if len(self._ready) < self._rules.groups_per_step:
            return None
        batch: list[ReadyGroup] = []
        unfit: list[tuple[ReadyGroup, Dropped]] = []
        for group in self._ready.values():
            if (reason := self._unfit(group, version)) is not None:
                unfit.append((group, reason))
            elif len(batch) < self._rules.groups_per_step:
                batch.append(group)
            else:
                break
        for group, reason in unfit:
            self._drop(group, reason)
        return batch if len(batch) == self._rules.groups_per_step else None

    def find(self, recorded: BatchFormed) -> list[ReadyGroup] | None:
        """The groups of a recorded batch if exactly what it names waits here, else None."""
        found = [self._complete.get(group.group_id, {}).get(group.revision) for group in recorded.groups]
        batch = [one.group for one in found if one is not None]
        if len(batch) < len(found) or sequence_ids(batch) != recorded.sequence_ids:
            return None
        return batch

    def find_nearest(self, recorded: BatchFormed) -> list[ReadyGroup] | None:
        """What waits here of a recorded batch; None if the records of one of its groups have not all come.

        A revision that is not here is replaced by the next one. A group that was dropped or trained here is left out.
        """
        batch = []
        for wanted in recorded.groups:
            complete = self._complete.get(wanted.group_id, {})
            newer = [number for number in complete if number >= wanted.revision]
            if newer:
                batch.append(complete[min(newer)].group)
            elif not self._finished.was_trained(wanted.group_id) and not self._finished.was_dropped(
                wanted.group_id, wanted.revision
            ):
                return None
        return batch

    def take(self, batch: Iterable[ReadyGroup]) -> None:
        """Remove the groups of a batch, so that no other one has them. Their offsets stay pending until `finish`."""
        for group in batch:
            newest = self._ready.pop(group.group_id)
            if group.malformed is not None:
                self._count(Dropped.MALFORMED, group.group_id, group.malformed)
            elif group is newest and group.group_id in self._spoiled:
                revision, why = self._spoiled[group.group_id]
                self._count(Dropped.MALFORMED, group.group_id, f"revision {revision}: {why}")
            elif not group.sequences:
                self._count(Dropped.EMPTY, group.group_id)

    def has_read(self, ends: Mapping[int, int]) -> bool:
        """Whether every record below these ends (partition → offset) was added, in this run or before."""
        return all(self._next.get(partition, 0) >= end for partition, end in ends.items())

    def finish(self, batch: Iterable[ReadyGroup], untrained: Mapping[str, Dropped] | None = None) -> None:
        """Mark `batch` as trained, except for groups of `untrained`; its offsets are no longer pending."""
        reasons = untrained or {}
        for group in batch:
            if (reason := reasons.get(group.group_id)) is not None:
                self._count(reason, group.group_id)
            self._close(group, trained=reason is None and bool(group.sequences))

    def take_dropped(self) -> Counter[str]:
        """Number of groups dropped since the last call, by reason."""
        dropped, self.dropped = self.dropped, Counter()
        return dropped

    def take_unusable(self) -> dict[str, str]:
        """Groups that cannot be trained, found since the last call: group id → `reason: details`."""
        unusable, self.unusable = self.unusable, {}
        return unusable

    @property
    def positions(self) -> dict[int, int]:
        """Partition → offset to resume from; everything below it is trained or dropped."""
        positions = dict(self._next)
        for partition, offset in self._pending.values():
            positions[partition] = min(positions[partition], offset)
        return positions

    @property
    def finished(self) -> Finished:
        """The finished groups; with `positions` all that a restart needs to know."""
        return self._finished.snapshot(self.positions)

    @property
    def waiting(self) -> int:
        """Number of complete groups waiting for a batch."""
        return len(self._ready)

    def _is_news(self, event: SequenceCredited | GroupCredited) -> bool:
        """Whether the record may still be trained. A late revision of a trained group is counted at its last record."""
        group_id = event.group_id
        complete = max(self._complete.get(group_id, ()), default=-1)
        spoiled = self._spoiled[group_id][0] if group_id in self._spoiled else -1
        if event.revision <= max(complete, spoiled, self._finished.revision(group_id)):
            return False
        if not self._finished.was_trained(group_id):
            return True
        if isinstance(event, GroupCredited):
            self._finished.note_revision(group_id, event.revision)
            self._count(Dropped.REVISED_AFTER_TRAINING, group_id)
        return False

    def _add_news(self, event: SequenceCredited | GroupCredited, place: Place) -> None:
        group_id = event.group_id
        revisions = self._open.setdefault(group_id, {})
        revision = revisions.setdefault(event.revision, PartialRevision(place))
        if group_id not in self._pending:
            self._need(group_id, place)
        if (group := revision.add(event, self._read)) is not None:
            self._promote(_Complete(revision.first, group))

    def _read(self, event: SequenceCredited) -> TrainSequence:
        return to_sequence(event, self._rules.advantage_scale, self._rules.vocabulary)

    def _promote(self, complete: _Complete) -> None:
        """Make a complete revision the one that new batches have, and discard older ones that are incomplete."""
        group = complete.group
        group_id = group.group_id
        older = self._ready.get(group_id)
        if group.malformed is not None and older is not None and older.sequences:
            del self._open[group_id][group.revision]
            self._spoiled[group_id] = group.revision, group.malformed
            return
        left = {n: one for n, one in self._open.pop(group_id).items() if n > group.revision}
        if left:
            self._open[group_id] = left
        self._complete.setdefault(group_id, {})[group.revision] = complete
        self._ready[group_id] = group

    def _unfit(self, group: ReadyGroup, version: int) -> Dropped | None:
        """Why the rules leave a group out of new batches; None if they do not."""
        if group.is_validation:
            return Dropped.VALIDATION
        if (limit := self._rules.max_staleness) is not None:
            oldest = group.oldest_version
            if oldest is not None and version - oldest > limit:
                return Dropped.STALE
        if not self._rules.drop_zero_variance or (group.sequences and not group.zero_variance):
            return None
        if group.malformed is not None:
            return Dropped.MALFORMED
        return Dropped.ZERO_VARIANCE if group.zero_variance else Dropped.EMPTY

    def _drop(self, group: ReadyGroup, reason: Dropped) -> None:
        """Drop a complete group without training it."""
        self._count(reason, group.group_id, group.malformed or "")
        del self._ready[group.group_id]
        self._close(group, trained=False)

    def _drop_incomplete(self, partition: int) -> None:
        """Drop groups of `partition` that are incomplete since too many records, so that they hold up no position."""
        heap, limit = self._oldest[partition], self._next[partition] - self._rules.incomplete_after
        while heap and heap[0][0] < limit:
            offset, group_id = heappop(heap)
            # A complete group only waits for its batch. If a newer revision is left of it then, it is needed anew.
            if self._pending.get(group_id) != (partition, offset) or group_id in self._ready:
                continue
            revisions = self._open.pop(group_id, {})
            if not revisions:
                continue
            newest = max(revisions)
            self._count(Dropped.INCOMPLETE, group_id, revisions[newest].lacks())
            del self._pending[group_id]
            self._finished.finish(group_id, newest, trained=False)

    def _count(self, reason: Dropped, group_id: str, why: str = "") -> None:
        self.dropped[reason.value] += 1
        if reason in UNUSABLE:
            self.unusable[group_id] = f"{reason.value}: {why}" if why else reason.value

    def _need(self, group_id: str, place: Place) -> None:
        self._pending[group_id] = place
        partition, offset = place
        heappush(self._oldest[partition], (offset, group_id))

    def _close(self, group: ReadyGroup, *, trained: bool) -> None:
        """Mark the group as finished. A newer revision of a group that was not trained gets its chance."""
        group_id = group.group_id
        done = group.revision
        complete = {n: one for n, one in self._complete.pop(group_id, {}).items() if n > done}
        newer = self._open.pop(group_id, {})
        if trained or not complete:
            done = max(done, self._spoiled.pop(group_id, (0, ""))[0])
        if trained and (late := [*complete, *(n for n, one in newer.items() if one.is_closed)]):
            done = max(late)
            self._count(Dropped.REVISED_AFTER_TRAINING, group_id)
        self._pending.pop(group_id, None)
        self._finished.finish(group_id, done, trained=trained)
        if (complete or newer) and not trained:
            self._reopen(group_id, complete, newer)
        if self._finished.over_limit:
            self._finished.forget(self.positions)

    def _reopen(self, group_id: str, complete: dict[int, _Complete], newer: dict[int, PartialRevision]) -> None:
        """Keep revisions that are newer than the one that was not trained."""
        self._need(group_id, min([*(one.first for one in complete.values()), *(one.first for one in newer.values())]))
        if newer:
            self._open[group_id] = newer
        if complete:
            self._complete[group_id] = complete
            self._ready[group_id] = complete[max(complete)].group


def sequence_ids(batch: Iterable[ReadyGroup]) -> list[str]:
    """Ids of the sequences of a batch, in training order."""
    return [sequence.sequence_id for group in batch for sequence in group.sequences]
