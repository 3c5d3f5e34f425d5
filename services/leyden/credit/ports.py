"""What credit needs from outside: stores of evidence, what is open since when, and somewhere to publish."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from leyden.kafka import Publisher
from leyden.state import EvidenceStore

__all__ = ["Backlog", "Census", "EvidenceStore", "OpenSubjects", "Publisher", "Stores"]


@dataclass(frozen=True)
class Census:
    """How many subjects are open, and since when the oldest one is."""

    count: int = 0
    oldest: datetime | None = None


class OpenSubjects(Protocol):
    """Subjects (attempts, or groups) that are not finished, each with the time at which it was first seen.

    Every method raises `Retry` when the store is away, and may be called again with the same arguments.
    """

    async def seen(self, subjects: Sequence[str], now: datetime) -> None:
        """These are open; the time of one that is known already stays as it is."""
        ...

    async def gone(self, subjects: Sequence[str]) -> None:
        """These are no longer open."""
        ...

    async def before(self, moment: datetime, limit: int) -> list[str]:
        """At most `limit` subjects first seen at `moment` or earlier, the oldest first."""
        ...

    async def census(self) -> Census:
        """All of them together."""
        ...


class Backlog(Protocol):
    """Whether some replica is still reading old records, so that what seems missing may only be unread."""

    async def mark_behind(self, for_s: float) -> None:
        """Say so to all replicas, for so long."""
        ...

    async def behind(self) -> bool:
        """Whether any replica said so within the time it gave."""
        ...


@dataclass(frozen=True)
class Stores:
    """The state of credit: private, and rebuildable from the log."""

    attempts: EvidenceStore
    """Evidence by attempt."""
    groups: EvidenceStore
    """By group its members, the record that closes it, and which revisions were published."""
    open_attempts: OpenSubjects
    open_groups: OpenSubjects
    deadlines: OpenSubjects
    """Groups that have members and no record, since their first member."""
    backlog: Backlog
