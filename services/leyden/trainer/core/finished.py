"""Remembers finished groups, so that a group is trained once, however often its records come. No IO.

A group is finished when it was trained or dropped. It may be forgotten once all its records are below the position from
which a restart reads; a finished group with a record above that is never forgotten, or it would be trained again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

REMEMBERED_GROUPS = 20_000
"""How many finished groups below the position are remembered: credit may publish a group twice."""
Place = tuple[int, int]
"""(Partition, offset) of a record."""


@dataclass(frozen=True)
class Finished:
    """Finished groups, as stored in a checkpoint."""

    done: tuple[str, ...] = ()
    """Oldest first."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    """Newest known revision of those groups, if not 0."""
    untrained: frozenset[str] = frozenset()
    """Those that were dropped; a newer revision of them may still be trained."""
    above: Mapping[str, Place] = field(default_factory=dict)
    """The last known record of those that have one above the position."""


class FinishedGroups:
    """The finished groups of one trainer, and the last record that was read of each group."""

    def __init__(self, before: Finished | None = None, remembered: int = REMEMBERED_GROUPS) -> None:
        before = before or Finished()
        self._remembered = remembered
        self._done = {group_id: before.revisions.get(group_id, 0) for group_id in before.done}
        self._untrained = set(before.untrained)
        self._last = dict(before.above)

    def revision(self, group_id: str) -> int:
        """The newest known revision of a finished group; -1 for any other."""
        return self._done.get(group_id, -1)

    def was_trained(self, group_id: str) -> bool:
        """Whether it was trained, so that no revision of it is trained again."""
        return group_id in self._done and group_id not in self._untrained

    def was_dropped(self, group_id: str, revision: int) -> bool:
        """Whether it was dropped at this revision or a newer one."""
        return group_id in self._untrained and self._done[group_id] >= revision

    def note_record(self, group_id: str, partition: int, offset: int) -> None:
        """Note that a record of the group was read, whether or not the group is finished."""
        known = self._last.get(group_id, (partition, -1))
        self._last[group_id] = (partition, max(offset, known[1]))

    def note_revision(self, group_id: str, revision: int) -> None:
        """Note a newer revision of a finished group."""
        self._done[group_id] = revision

    def finish(self, group_id: str, revision: int, *, trained: bool) -> None:
        """Add a group, as the newest."""
        self._done.pop(group_id, None)
        self._done[group_id] = revision
        (self._untrained.discard if trained else self._untrained.add)(group_id)

    @property
    def over_limit(self) -> bool:
        """Whether some groups may be forgotten."""
        return len(self._done) > self._remembered

    def forget(self, positions: Mapping[int, int]) -> None:
        """Forget the oldest groups beyond the number to remember, as far as they are below `positions`."""
        while self.over_limit:
            oldest = next(iter(self._done))
            if self._is_above(oldest, positions):
                break
            del self._done[oldest]
            self._untrained.discard(oldest)
            self._last.pop(oldest, None)

    def snapshot(self, positions: Mapping[int, int]) -> Finished:
        """The finished groups, for a checkpoint from which a restart reads at `positions`."""
        return Finished(
            tuple(self._done),
            {group_id: revision for group_id, revision in self._done.items() if revision},
            frozenset(self._untrained),
            {group_id: self._last[group_id] for group_id in self._done if self._is_above(group_id, positions)},
        )

    def _is_above(self, group_id: str, positions: Mapping[int, int]) -> bool:
        last = self._last.get(group_id)
        return last is not None and last[1] >= positions.get(last[0], 0)
