"""What the gateway needs from outside. A passing fault of any of them is `leyden.kafka.Retry`; it becomes a 503."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from leyden.gateway.core.rollouts import RolloutSpec, RolloutState, Running
from leyden.ids import AttemptRef
from leyden.kafka import Publisher


class Log(Publisher, Protocol):
    """Kafka, with an end to patience: publishing raises `Retry` when it takes too long."""

    def must_be_up(self) -> None:
        """Raise `Retry` when publishing has just failed."""
        ...


class EngineUnreachable(Exception):  # noqa: N818
    """No connection was made: nothing was sent, another replica may be asked."""


class EngineBroke(Exception):  # noqa: N818
    """The engine was asked and the answer did not come, or not whole. `timed_out` when the time was over."""

    def __init__(self, message: str, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class EngineReply(Protocol):
    """An answer whose head has come."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers, looked up in any case."""
        ...

    async def read(self) -> bytes:
        """The whole body. Raises `EngineBroke`."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `EngineBroke`."""
        ...

    def close(self) -> None:
        """Let go; an answer that was not read to its end is cancelled at the engine."""
        ...


class Engines(Protocol):
    """The way to the policy servers."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> EngineReply:
        """Send a request and wait for the answer's head. Raises `EngineUnreachable` or `EngineBroke`."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether an attempt may still call models, and in which mode."""

    open: bool
    """False when the attempt has ended, was given up, or has not begun."""
    mode: str = "train"


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A rollout as it can be asked for."""

    attempt: int
    state: RolloutState
    status: str | None
    spec: RolloutSpec
    started_at: datetime | None
    runner: str | None


class EndResult(StrEnum):
    """What became of an attempt's end."""

    FIRST = "first"
    """This report is the attempt's end."""
    EARLIER = "earlier"
    """An earlier report was; it stays."""
    NOT_RUNNING = "not_running"
    """The attempt is not under way, and no end of it is kept."""
    LEASED = "leased"
    """The lease that was thought to be over was renewed meanwhile."""


@dataclass(frozen=True, slots=True)
class EndOutcome:
    """The end that counts and the calls that belong to it; both frozen from the first end on."""

    result: EndResult
    stored: bytes = b""
    call_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many rollouts stand where."""

    queued: int
    running: int
    ended: int


class RolloutStore(Protocol):
    """Tasks, the queue, leases, ends and call ids. Each method is one atomic step; all may be repeated."""

    async def accept_tasks(self, events: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """(task id, event): keep each event unless its task has one already; returns those that are kept, in order."""
        ...

    async def enqueue(self, rollouts: Sequence[tuple[str, RolloutSpec]]) -> None:
        """Queue those that are not known."""
        ...

    async def claim(self, limit: int, runner: str, now: datetime, lease_until: datetime) -> list[Running]:
        """Take up to `limit` from the queue's head, leased."""
        ...

    async def unclaim(self, refs: Sequence[AttemptRef]) -> None:
        """Put claimed attempts back at the queue's head, as if they had not been claimed."""
        ...

    async def begin(self, running: Running, lease_until: datetime) -> None:
        """An attempt that nobody queued is under way."""
        ...

    async def extend(self, ref: AttemptRef, lease_until: datetime) -> bool:
        """Renew a lease; False when there is none."""
        ...

    async def standing(self, ref: AttemptRef) -> Standing:
        """Whether the attempt may call models; an unknown rollout may."""
        ...

    async def add_call(self, ref: AttemptRef, call_id: str) -> bool:
        """List a call of the attempt, unless it may not call models: then False."""
        ...

    async def end(self, ref: AttemptRef, stored: bytes, now: datetime, lease_over: bool) -> EndOutcome:
        """The first end wins and closes the attempt for calls. `lease_over`: only if its lease is over at `now`."""
        ...

    async def find_end(self, ref: AttemptRef) -> EndOutcome | None:
        """The end that is kept for an attempt."""
        ...

    async def settle(self, ref: AttemptRef, final: bool, status: str) -> None:
        """The end is in the log: the rollout is ended, or queued again as the next attempt. Works once."""
        ...

    async def find(self, rollout_id: str) -> RolloutView | None:
        """A rollout, or None when it is unknown or forgotten."""
        ...

    async def expired(self, now: datetime, limit: int) -> list[AttemptRef]:
        """Attempts whose lease is over."""
        ...

    async def unsettled(self, ended_before: datetime, limit: int) -> list[AttemptRef]:
        """Attempts that ended before then and are not settled."""
        ...

    async def counts(self) -> QueueCounts:
        """How many rollouts stand where."""
        ...
