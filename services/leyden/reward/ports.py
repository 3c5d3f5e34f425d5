"""What reward needs of the world, beside the shared evidence store and publisher."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol


class WaitingAttempts(Protocol):
    """Attempts that have ended and are not yet closed, each with the time at which to stop waiting.

    Every method raises `Retry` when the store is away, and may be called again with the same arguments.
    """

    async def add(self, deadlines: Mapping[str, datetime]) -> None:
        """Wait for these subjects; the deadline of one that is waiting already stays as it is."""
        ...

    async def among(self, subjects: Sequence[str]) -> list[str]:
        """Those of `subjects` that are waiting."""
        ...

    async def remove(self, subjects: Sequence[str]) -> None:
        """Stop waiting for these."""
        ...

    async def due(self, now: datetime, limit: int) -> list[str]:
        """At most `limit` subjects whose deadline has passed, the oldest first."""
        ...

    async def put_off(self, subjects: Sequence[str], until: datetime) -> None:
        """Give those of `subjects` that are waiting a new deadline."""
        ...

    async def mark_behind(self, for_s: float) -> None:
        """Say to all replicas that old records are being read, so that what seems missing may only be unread."""
        ...

    async def behind(self) -> bool:
        """Whether any replica said so within the time it gave."""
        ...
