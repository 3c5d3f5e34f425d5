"""Whole groups in arrival order become batches; offsets below which nothing is needed any more are where to resume.

A group is trained once, at the newest revision that is complete when its batch is formed. Batches depend on the order
of the records alone, not on how they were handed over, so a resumed run forms the same ones. No Kafka: a record's place
is given as (partition, offset). No torch.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from leyden.events import GroupCredited, SequenceCredited
from leyden.trainer.core.sequences import TrainSequence, to_sequence

REMEMBERED_GROUPS = 20_000
"""How many finished groups are known by name, so that one published twice is trained once."""


@dataclass(frozen=True)
class BatchRules:
    """What makes a batch."""

    policy: str
    credit: str = ""
    """Name of the credit service whose transitions are trained on."""
    groups_per_step: int = 8
    max_staleness: int | None = None
    """Groups with an action more than this many versions old are dropped; None: never."""
    drop_zero_variance: bool = False
    """Whether groups without spread (or without members) are left out of the count to `groups_per_step`."""
    advantage_scale: float = 1.0


@dataclass(frozen=True, eq=False)
class ReadyGroup:
    """A complete group, its sequences in order. Without sequences it only counts."""

    group_id: str
    sequences: tuple[TrainSequence, ...]
    left_out: int
    zero_variance: bool
    revision: int = 0
    malformed: bool = False
    """Whether it has no sequences because one of them could not be used."""

    @property
    def oldest_version(self) -> int | None:
        """The oldest policy version that acted in the group."""
        versions = [sequence.oldest_version for sequence in self.sequences]
        return min((version for version in versions if version is not None), default=None)


@dataclass(frozen=True)
class Finished:
    """The groups that are done with, as a checkpoint remembers them."""

    done: tuple[str, ...] = ()
    """Oldest first."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    """The newest revision known of those, where it is not 0."""
    untrained: frozenset[str] = frozenset()
    """Those of them that were dropped: a newer revision may still be trained."""


@dataclass
class _Revision:
    """One revision of a group as far as it has come."""

    first: tuple[int, int]
    """(Partition, offset) of the first of its records."""
    sequences: dict[int, TrainSequence] = field(default_factory=dict)
    malformed: str | None = None
    """Why one of its sequences cannot be used; a group is trained whole or not at all."""
    closing: GroupCredited | None = None


class GroupBuffer:
    """Collects groups. Every method is idempotent: a record that comes again changes nothing."""

    def __init__(
        self, rules: BatchRules, positions: Mapping[int, int] | None = None, finished: Finished | None = None
    ) -> None:
        before = finished or Finished()
        self._rules = rules
        self._next = dict(positions or {})
        self._done = {group_id: before.revisions.get(group_id, 0) for group_id in before.done}
        """Finished group → the newest revision known of it."""
        self._untrained = set(before.untrained)
        self._open: dict[str, dict[int, _Revision]] = {}
        """Group → its revisions that are not complete."""
        self._ready: dict[str, ReadyGroup] = {}
        """In the order in which the groups first became complete, each at its newest complete revision."""
        self._spoiled: dict[str, int] = {}
        """Waiting group → a newer revision of it that cannot be used."""
        self._pending: dict[str, tuple[int, int]] = {}
        """Group → (partition, lowest offset), for every group that is neither trained nor dropped."""
        self.dropped: Counter[str] = Counter()
        """Groups (or revisions of them) that were not trained, by reason, since the last `take_dropped`."""

    def add(self, event: SequenceCredited | GroupCredited, partition: int, offset: int) -> None:
        """Take one record in; a malformed sequence spoils its revision of the group, never the stream."""
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
        """The next batch for a policy at `version`, or None until there is one; its offsets stay pending."""
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
        """The step on `batch` was made: its offsets are needed no more."""
        for group in batch:
            self._untrained.discard(group.group_id)
            self._close(group)

    def take_dropped(self) -> Counter[str]:
        """Groups dropped since the last call, by reason."""
        dropped, self.dropped = self.dropped, Counter()
        return dropped

    @property
    def positions(self) -> dict[int, int]:
        """Partition → offset to resume from: everything below it is trained or dropped."""
        positions = dict(self._next)
        for partition, offset in self._pending.values():
            positions[partition] = min(positions[partition], offset)
        return positions

    @property
    def finished(self) -> Finished:
        """Groups that are done with."""
        revisions = {group_id: revision for group_id, revision in self._done.items() if revision}
        return Finished(tuple(self._done), revisions, frozenset(self._untrained))

    @property
    def waiting(self) -> int:
        """Complete groups that wait for a batch."""
        return len(self._ready)

    def _is_news(self, event: SequenceCredited | GroupCredited) -> bool:
        """Whether the record may still be trained; one of a group that was trained before is counted at its end."""
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
            revision.sequences[event.sequence_index] = to_sequence(event, self._rules.advantage_scale)
        except ValueError as error:
            revision.malformed = f"sequence {event.sequence_index}: {error}"

    def _promote(self, group: ReadyGroup) -> None:
        """Make a complete revision the one that is trained; what is older is needed no more."""
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
        """Let a complete group go untrained."""
        self.dropped[reason] += 1
        del self._ready[group.group_id]
        self._untrained.add(group.group_id)
        self._close(group)

    def _close(self, group: ReadyGroup) -> None:
        """Remember the group as finished. A newer revision of a dropped one that has begun to come stays open."""
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
    """The revision as a group to train on, once all of it is here."""
    closing = revision.closing
    if closing is None or (revision.malformed is None and len(revision.sequences) < closing.sequences):
        return None
    unusable = revision.malformed is not None
    sequences = () if unusable else tuple(revision.sequences[index] for index in sorted(revision.sequences))
    return ReadyGroup(
        group_id, sequences, len(closing.left_out), closing.zero_variance, closing.revision, malformed=unusable
    )
