"""What reward needs of the world, beside the shared evidence store and publisher."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from leyden.reward.core.answer import Answer
from leyden.reward.core.evidence import SettledAttempt
from leyden.reward.core.late import LateState
from leyden.reward.core.view import RolloutView


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


class LateStates(Protocol):
    """What is kept of judged attempts for as long as late rewards count. The same promise."""

    async def load(self, subjects: Sequence[str]) -> Mapping[str, LateState]:
        """The states of those of `subjects` that have one."""
        ...

    async def save(self, states: Mapping[str, LateState]) -> None:
        """Keep `states`; an earlier revision never replaces a later one."""
        ...


class JudgeDesk(Protocol):
    """Where settled attempts are handed in to be judged."""

    async def submit(self, attempts: Sequence[SettledAttempt]) -> None:
        """Have `attempts` judged by whom they lack; returns once that is durable, and does not wait for a verdict.

        May be called again with the same attempts, those that lack nothing included: they count in their groups.
        """
        ...


class Functions(Protocol):
    """The run file's reward functions."""

    async def answers(self, views: Sequence[RolloutView]) -> Sequence[Mapping[str, Answer]]:
        """Per view, each function's answer by its rule's name. A failure is an answer too, and raises nothing."""
        ...
