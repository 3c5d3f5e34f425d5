"""Ports of credit: the stores and the publisher that it needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from leyden.kafka import Publisher
from leyden.state import EvidenceStore

__all__ = ["Backlog", "EvidenceStore", "OpenCount", "OpenSubjects", "Publisher", "Stores"]


@dataclass(frozen=True)
class OpenCount:
    """How many subjects are open, and when the oldest was first seen."""

    count: int = 0
    oldest: datetime | None = None


class OpenSubjects(Protocol):
    """Subjects (attempts, or groups) that are not finished, each with the time at which it was first seen.

    Every method raises `Retry` when the store is away, and may be called again with the same arguments.
    """

    async def seen(self, subjects: Sequence[str], now: datetime) -> None:
        """Mark as open since `now`; subjects that are open already keep their time."""
        ...

    async def gone(self, subjects: Sequence[str]) -> None:
        """Mark as no longer open."""
        ...

    async def before(self, moment: datetime, limit: int) -> list[str]:
        """At most `limit` subjects first seen at `moment` or earlier, the oldest first."""
        ...

    async def count(self) -> OpenCount:
        """How many are open, and since when."""
        ...


class Backlog(Protocol):
    """Whether a replica is still reading old records, so that a missing record may just be unread."""

    async def mark_behind(self, for_s: float) -> None:
        """Tell all replicas, for `for_s` seconds."""
        ...

    async def behind(self) -> bool:
        """Whether a replica's `mark_behind` still holds."""
        ...


@dataclass(frozen=True)
class Stores:
    """The state of credit: private, and can be rebuilt from the log."""

    attempts: EvidenceStore
    """Evidence by attempt."""
    groups: EvidenceStore
    """By group: its members, the record that closes it, and its published revisions."""
    open_attempts: OpenSubjects
    open_groups: OpenSubjects
    deadlines: OpenSubjects
    """Groups with members but no closing record, since their first member."""
    backlog: Backlog
