"""Whole groups in arrival order become batches; offsets below which nothing is needed any more become resume positions.

No Kafka: a record's place is given as (partition, offset). No torch.
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

    @property
    def oldest_version(self) -> int | None:
        """The oldest policy version that acted in the group."""
        versions = [sequence.oldest_version for sequence in self.sequences]
        return min((version for version in versions if version is not None), default=None)


@dataclass
class _OpenGroup:
    sequences: dict[int, TrainSequence] = field(default_factory=dict)
    malformed: str | None = None
    """Why one of its sequences cannot be used; a group is trained whole or not at all."""
    closing: GroupCredited | None = None
    offsets: list[int] = field(default_factory=list)
    partition: int = 0


class GroupBuffer:
    """Collects groups. Every method is idempotent: a record that comes again changes nothing."""

    def __init__(self, rules: BatchRules, positions: Mapping[int, int] | None = None, done: Iterable[str] = ()) -> None:
        self._rules = rules
        self._next = dict(positions or {})
        self._done = dict.fromkeys(done)
        self._open: dict[str, _OpenGroup] = {}
        self._ready: list[ReadyGroup] = []
        self._pending: dict[str, tuple[int, int]] = {}
        """Group → (partition, lowest offset), for every group that is neither trained nor dropped."""
        self.dropped: Counter[str] = Counter()
        """Groups that were not trained, by reason, since the last `take_dropped`."""

    def add(self, event: SequenceCredited | GroupCredited, partition: int, offset: int) -> None:
        """Take one record in; a malformed sequence spoils its group, never the stream."""
        self._next[partition] = max(self._next.get(partition, 0), offset + 1)
        if event.policy != self._rules.policy or event.group_id in self._done or self._is_ready(event.group_id):
            return
        group = self._open.setdefault(event.group_id, _OpenGroup())
        self._pending.setdefault(event.group_id, (partition, offset))
        if isinstance(event, GroupCredited):
            group.closing = event
        else:
            self._add_sequence(group, event)
        self._promote(event.group_id, group)

    def take(self, version: int) -> list[ReadyGroup] | None:
        """The next batch for a policy at `version`, or None until there is one; its offsets stay pending."""
        self._ready = [group for group in self._ready if not self._too_old(group, version)]
        if len(self._ready) < self._rules.groups_per_step:
            return None
        batch, self._ready = self._ready[: self._rules.groups_per_step], self._ready[self._rules.groups_per_step :]
        return batch

    def finish(self, batch: Iterable[ReadyGroup]) -> None:
        """The step on `batch` was made: its offsets are needed no more."""
        for group in batch:
            self._close(group.group_id)

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
    def done(self) -> list[str]:
        """Groups that must not be trained again, oldest first."""
        return list(self._done)

    @property
    def waiting(self) -> int:
        """Complete groups that wait for a batch."""
        return len(self._ready)

    def _add_sequence(self, group: _OpenGroup, event: SequenceCredited) -> None:
        try:
            group.sequences[event.sequence_index] = to_sequence(event, self._rules.advantage_scale)
        except ValueError as error:
            group.malformed = f"sequence {event.sequence_index}: {error}"

    def _promote(self, group_id: str, group: _OpenGroup) -> None:
        """Move a group that is complete to where batches are taken from."""
        closing = group.closing
        if closing is None or (group.malformed is None and len(group.sequences) < closing.sequences):
            return
        del self._open[group_id]
        if group.malformed is not None:
            self.dropped["malformed"] += 1
        elif not closing.sequences:
            self.dropped["empty"] += 1
        elif closing.zero_variance:
            self.dropped["zero_variance"] += self._rules.drop_zero_variance
        unusable = group.malformed is not None
        sequences = () if unusable else tuple(group.sequences[index] for index in sorted(group.sequences))
        if self._rules.drop_zero_variance and (closing.zero_variance or not sequences):
            self._close(group_id)
            return
        self._ready.append(ReadyGroup(group_id, sequences, len(closing.left_out), closing.zero_variance))

    def _too_old(self, group: ReadyGroup, version: int) -> bool:
        oldest, limit = group.oldest_version, self._rules.max_staleness
        if limit is None or oldest is None or version - oldest <= limit:
            return False
        self.dropped["stale"] += 1
        self._close(group.group_id)
        return True

    def _is_ready(self, group_id: str) -> bool:
        return group_id in self._pending and group_id not in self._open

    def _close(self, group_id: str) -> None:
        self._pending.pop(group_id, None)
        self._done[group_id] = None
        while len(self._done) > REMEMBERED_GROUPS:
            del self._done[next(iter(self._done))]
