"""Forms batches of complete groups in the order of arrival, and tracks the offsets to resume from.

A group is trained once, at the newest revision that is complete when its batch is formed. Batches depend only on the
order of the records, not on how they were polled, so a resumed run forms the same batches. Records are identified by
(partition, offset). No Kafka client, no torch.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from leyden.events import GroupCredited, SequenceCredited
from leyden.trainer.core.sequences import LARGEST_VOCABULARY, TrainSequence, to_sequence

REMEMBERED_GROUPS = 20_000
"""How many finished groups are remembered, so that a group published twice is trained once."""


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
    vocabulary: int = LARGEST_VOCABULARY
    """Token ids of the model are below this; a group with another one is malformed."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadyGroup:
    """A complete group with its sequences in order. A group without sequences only counts."""

    group_id: str
    sequences: tuple[TrainSequence, ...]
    left_out: int
    zero_variance: bool
    revision: int = 0
    malformed: bool = False
    """Whether it has no sequences because one of them was malformed."""

    @property
    def oldest_version(self) -> int | None:
        """The oldest policy version among the group's actions."""
        versions = [sequence.oldest_version for sequence in self.sequences]
        return min((version for version in versions if version is not None), default=None)


@dataclass(frozen=True)
class Finished:
    """Finished groups, as stored in a checkpoint."""

    done: tuple[str, ...] = ()
    """Oldest first."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    """Newest known revision of those groups, if not 0."""
    untrained: frozenset[str] = frozenset()
    """Those that were dropped; a newer revision of them may still be trained."""


@dataclass
class _Revision:
    """The records received so far of one revision of a group."""

    first: tuple[int, int]
    """(Partition, offset) of the first of its records."""
    sequences: dict[int, TrainSequence] = field(default_factory=dict)
    malformed: str | None = None
    """Why one of its sequences is malformed. A group is trained as a whole or not at all."""
    closing: GroupCredited | None = None


class GroupBuffer:
    """Collects records into groups. Idempotent: a redelivered record changes nothing."""

    def __init__(
        self, rules: BatchRules, positions: Mapping[int, int] | None = None, finished: Finished | None = None
    ) -> None:
        before = finished or Finished()
        self._rules = rules
        self._next = dict(positions or {})
        self._done = {group_id: before.revisions.get(group_id, 0) for group_id in before.done}
        """Finished group → its newest known revision."""
        self._untrained = set(before.untrained)
        self._open: dict[str, dict[int, _Revision]] = {}
        """Group → its incomplete revisions."""
        self._ready: dict[str, ReadyGroup] = {}
        """Newest complete revision of each group, in the order in which the groups first became complete."""
        self._spoiled: dict[str, int] = {}
        """Waiting group → a newer, malformed revision of it."""
        self._pending: dict[str, tuple[int, int]] = {}
        """Group → (partition, lowest offset), for groups neither trained nor dropped."""
        self.dropped: Counter[str] = Counter()
        """Number of groups (or revisions) not trained since the last `take_dropped`, by reason."""

    def add(self, event: SequenceCredited | GroupCredited, partition: int, offset: int) -> None:
        """Add a record. A malformed sequence makes only its revision of the group unusable."""
        self._next[partition] = max(self._next.get(partition, 0), offset + 1)
        if (event.policy, event.credit) != (self._rules.policy, self._rules.credit) or not self._is_news(event):
            return
        group_id = event.group_id
        revision = self._open.setdefault(group_id, {}).setdefault(event.revision, _Revision((partition, offset)))
        self._pending.setdefault(group_id, (partition, offset))
        if isinstance(event, GroupCredited):
            revision.closing = event
        else:
            self._add_sequence(revision, event)
        if (complete := _complete(group_id, revision)) is not None:
            self._promote(complete)

    def take(self, version: int) -> list[ReadyGroup] | None:
        """The next batch for a policy at `version`, or None if there is none yet. Its offsets stay pending."""
        for group in [group for group in self._ready.values() if self._too_old(group, version)]:
            self._drop(group, "stale")
        if len(self._ready) < self._rules.groups_per_step:
            return None
        batch = list(self._ready.values())[: self._rules.groups_per_step]
        for group in batch:
            del self._ready[group.group_id]
            if group.malformed or group.group_id in self._spoiled:
                self.dropped["malformed"] += 1
            elif not group.sequences:
                self.dropped["empty"] += 1
        return batch

    def finish(self, batch: Iterable[ReadyGroup]) -> None:
        """Mark `batch` as trained; its offsets are no longer pending."""
        for group in batch:
            self._untrained.discard(group.group_id)
            self._close(group)

    def take_dropped(self) -> Counter[str]:
        """Number of groups dropped since the last call, by reason."""
        dropped, self.dropped = self.dropped, Counter()
        return dropped

    @property
    def positions(self) -> dict[int, int]:
        """Partition → offset to resume from; everything below it is trained or dropped."""
        positions = dict(self._next)
        for partition, offset in self._pending.values():
            positions[partition] = min(positions[partition], offset)
        return positions

    @property
    def finished(self) -> Finished:
        """The finished groups."""
        revisions = {group_id: revision for group_id, revision in self._done.items() if revision}
        return Finished(tuple(self._done), revisions, frozenset(self._untrained))

    @property
    def waiting(self) -> int:
        """Number of complete groups waiting for a batch."""
        return len(self._ready)

    def _is_news(self, event: SequenceCredited | GroupCredited) -> bool:
        """Whether the record may still be trained. A late revision of a trained group is counted at its last record."""
        group_id = event.group_id
        ready = self._ready[group_id].revision if group_id in self._ready else -1
        if event.revision <= max(ready, self._done.get(group_id, -1), self._spoiled.get(group_id, -1)):
            return False
        if group_id not in self._done or group_id in self._untrained:
            return True
        if isinstance(event, GroupCredited):
            self._done[group_id] = event.revision
            self.dropped["revised_after_training"] += 1
        return False

    def _add_sequence(self, revision: _Revision, event: SequenceCredited) -> None:
        try:
            revision.sequences[event.sequence_index] = to_sequence(
                event, self._rules.advantage_scale, self._rules.vocabulary
            )
        except ValueError as error:
            revision.malformed = f"sequence {event.sequence_index}: {error}"

    def _promote(self, group: ReadyGroup) -> None:
        """Make a complete revision the one to train, and discard older ones."""
        older = self._ready.get(group.group_id)
        if group.malformed and older is not None and older.sequences:
            del self._open[group.group_id][group.revision]
            self._spoiled[group.group_id] = group.revision
            return
        left = {n: one for n, one in self._open.pop(group.group_id).items() if n > group.revision}
        if left:
            self._open[group.group_id] = left
        self._ready[group.group_id] = group
        if self._rules.drop_zero_variance and (group.zero_variance or not group.sequences):
            self._drop(group, "malformed" if group.malformed else "zero_variance" if group.zero_variance else "empty")

    def _too_old(self, group: ReadyGroup, version: int) -> bool:
        oldest, limit = group.oldest_version, self._rules.max_staleness
        return limit is not None and oldest is not None and version - oldest > limit

    def _drop(self, group: ReadyGroup, reason: str) -> None:
        """Drop a complete group without training it."""
        self.dropped[reason] += 1
        del self._ready[group.group_id]
        self._untrained.add(group.group_id)
        self._close(group)

    def _close(self, group: ReadyGroup) -> None:
        """Mark the group as finished. A newer, incomplete revision of a dropped group stays open."""
        group_id = group.group_id
        done = max(group.revision, self._spoiled.pop(group_id, 0))
        newer = {n: one for n, one in self._open.pop(group_id, {}).items() if n > done}
        self._pending.pop(group_id, None)
        if newer and group_id in self._untrained:
            self._open[group_id] = newer
            self._pending[group_id] = min(one.first for one in newer.values())
        self._done.pop(group_id, None)
        self._done[group_id] = done
        while len(self._done) > REMEMBERED_GROUPS:
            oldest = next(iter(self._done))
            del self._done[oldest]
            self._untrained.discard(oldest)


def _complete(group_id: str, revision: _Revision) -> ReadyGroup | None:
    """The revision as a `ReadyGroup` once all its records have arrived, else None."""
    closing = revision.closing
    if closing is None or (revision.malformed is None and len(revision.sequences) < closing.sequences):
        return None
    unusable = revision.malformed is not None
    sequences = () if unusable else tuple(revision.sequences[index] for index in sorted(revision.sequences))
    return ReadyGroup(
        group_id=group_id,
        sequences=sequences,
        left_out=len(closing.left_out),
        zero_variance=closing.zero_variance,
        revision=closing.revision,
        malformed=unusable,
    )
