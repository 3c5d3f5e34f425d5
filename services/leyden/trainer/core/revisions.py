"""Collects the records of one revision of a group until it is complete. No IO."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from leyden.events import GroupCredited, SequenceCredited
from leyden.events.transitions import LEFT_OUT_VALIDATION
from leyden.trainer.core.finished import Place
from leyden.trainer.core.sequences import TrainSequence


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadyGroup:
    """A complete group with its sequences in order. A group without sequences only counts."""

    group_id: str
    sequences: tuple[TrainSequence, ...]
    left_out: int
    zero_variance: bool
    revision: int = 0
    malformed: str | None = None
    """Why one of its sequences is malformed, so that it has none. None: it is not."""
    is_validation: bool = False
    """Whether all its rollouts were of validation tasks."""

    @property
    def has_signal(self) -> bool:
        """Whether a sequence of it has an advantage that is not 0."""
        return any(sequence.has_signal for sequence in self.sequences)

    @cached_property
    def oldest_version(self) -> int | None:
        """The oldest policy version among the group's actions."""
        versions = [sequence.oldest_version for sequence in self.sequences]
        return min((version for version in versions if version is not None), default=None)


@dataclass
class _Parts:
    """The records that name the same number of sequences."""

    sequences: dict[int, TrainSequence | None] = field(default_factory=dict)
    """By index; None: malformed."""
    malformed: str | None = None
    """Why one of its sequences is malformed. A group is trained as a whole or not at all."""
    closing: GroupCredited | None = None


class PartialRevision:
    """The records received so far of one revision of a group.

    Records belong together if they name the same number of sequences. So records that contradict each other make no
    group, in whatever order they come; neither does a sequence outside that number, and of two with one index the first
    counts.
    """

    def __init__(self, first: Place) -> None:
        self.first = first
        """Its first record."""
        self._by_count: dict[int, _Parts] = {}

    def add(
        self, event: SequenceCredited | GroupCredited, read: Callable[[SequenceCredited], TrainSequence]
    ) -> ReadyGroup | None:
        """Add a record; the group, if this record completes it. `read` raises ValueError for a malformed sequence."""
        if isinstance(event, GroupCredited):
            parts = self._by_count.setdefault(event.sequences, _Parts())
            parts.closing = parts.closing or event
        else:
            parts = self._by_count.setdefault(event.group_sequences, _Parts())
            if event.sequence_index < event.group_sequences and event.sequence_index not in parts.sequences:
                try:
                    parts.sequences[event.sequence_index] = read(event)
                except ValueError as error:
                    parts.sequences[event.sequence_index] = None
                    parts.malformed = parts.malformed or f"sequence {event.sequence_index}: {error}"
        return _complete(parts)

    @property
    def is_closed(self) -> bool:
        """Whether the record that closes the group has come."""
        return any(parts.closing is not None for parts in self._by_count.values())

    def lacks(self) -> str:
        """What it lacks, while it is incomplete."""
        found = [
            f"{len(parts.sequences)} of {count} sequences"
            + ("" if parts.closing else " without the group's last record")
            for count, parts in sorted(self._by_count.items())
        ]
        return "; ".join(found)


def _complete(parts: _Parts) -> ReadyGroup | None:
    """The parts as a `ReadyGroup` once all of them are here."""
    closing = parts.closing
    if closing is None or len(parts.sequences) < closing.sequences:
        return None
    in_order = (parts.sequences[index] for index in range(closing.sequences))
    return ReadyGroup(
        group_id=closing.group_id,
        sequences=() if parts.malformed else tuple(one for one in in_order if one is not None),
        left_out=len(closing.left_out),
        zero_variance=closing.zero_variance,
        revision=closing.revision,
        is_validation=closing.sequences == 0 and set(closing.left_out.values()) == {LEFT_OUT_VALIDATION},
        malformed=parts.malformed,
    )
