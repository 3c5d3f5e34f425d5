"""Ports of reward, in addition to the shared evidence store and publisher."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from leyden.reward.core.answer import Answer
from leyden.reward.core.evidence import SettledAttempt
from leyden.reward.core.late import LateState
from leyden.reward.core.view import RolloutView


class WaitingAttempts(Protocol):
    """Attempts that have ended and are not closed yet.

    An attempt is *unread* from its end until everything that was acknowledged before its end has been read. From then
    on it has a deadline. Every method raises `Retry` if the store is unavailable, and is idempotent.
    """

    async def add(self, subjects: Sequence[str]) -> None:
        """Add subjects as unread. Those that are waiting already are not changed."""
        ...

    async def any_due(self, now: datetime) -> bool:
        """Whether an attempt is unread, or has a deadline that has passed."""
        ...

    async def begin_reading(self) -> int:
        """Number of a new reading of the log. Subjects added before have a smaller number, on all replicas."""
        ...

    async def unread(self, before: int, limit: int) -> list[str]:
        """At most `limit` unread subjects that were added before reading number `before` began, the oldest first."""
        ...

    async def have_read(self, subjects: Sequence[str], until: datetime) -> None:
        """Give those of `subjects` that are unread the deadline `until`."""
        ...

    async def among(self, subjects: Sequence[str]) -> dict[str, bool]:
        """Those of `subjects` that are waiting, each with whether it is unread."""
        ...

    async def remove(self, subjects: Sequence[str]) -> None:
        """Remove subjects."""
        ...

    async def due(self, now: datetime, limit: int) -> list[str]:
        """At most `limit` subjects whose deadline has passed, the oldest first."""
        ...

    async def put_off(self, subjects: Sequence[str], until: datetime) -> None:
        """Set a new deadline for those of `subjects` that have one."""
        ...

    async def mark_behind(self, for_s: float) -> None:
        """Tell all replicas, for `for_s` seconds, that old records are being read: missing records may be unread."""
        ...

    async def behind(self) -> bool:
        """Whether `mark_behind` of any replica is still in effect."""
        ...


class LateStates(Protocol):
    """State of assessed attempts, kept as long as late rewards count. Errors as in `WaitingAttempts`."""

    async def load(self, subjects: Sequence[str]) -> Mapping[str, LateState]:
        """The states of `subjects`; missing ones are omitted."""
        ...

    async def save(self, states: Mapping[str, LateState]) -> None:
        """Store `states`. An earlier revision never replaces a later one."""
        ...


class JudgeSubmitter(Protocol):
    """Accepts settled attempts for judging."""

    async def submit(self, attempts: Sequence[SettledAttempt]) -> None:
        """Queue judging jobs for the verdicts that `attempts` lack. Returns once they are stored; waits for no verdict.

        Idempotent. Also pass attempts that lack no verdict, because they count as members of their groups.
        """
        ...


class Functions(Protocol):
    """The run file's reward functions."""

    async def answers(self, views: Sequence[RolloutView]) -> Sequence[Mapping[str, Answer]]:
        """For each view, the functions' answers by rule name. A failed call gives an `Answer` with the failure."""
        ...
