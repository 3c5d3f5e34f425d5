"""The gateway's ports. A temporary fault of any of them is a `leyden.kafka.Retry`, which becomes a 503."""

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from leyden.events import Event, KeyLimits
from leyden.gateway.core.agents import Agent
from leyden.gateway.core.keys import Level
from leyden.gateway.core.reply import CallNote, LastCall
from leyden.gateway.core.restoring import Restored
from leyden.gateway.core.rollouts import RolloutSpec, RolloutState, Running
from leyden.gateway.core.upstreams import Timeouts
from leyden.ids import AttemptRef
from leyden.kafka import Publisher


class Log(Publisher, Protocol):
    """A publisher with a deadline: raises `Retry` if Kafka takes too long."""

    def must_be_up(self) -> None:
        """Raise `Retry` if publishing has just failed or is slow."""
        ...


class ResponseWriter(Protocol):
    """Where a model call's reply is written to: one body, or a stream of events."""

    @property
    def started(self) -> bool:
        """Whether part of the reply was sent; from then on a failure must be an event."""
        ...

    async def whole(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a plain reply."""
        ...

    async def start(self, headers: Mapping[str, str]) -> None:
        """Start a stream of server-sent events."""
        ...

    async def write(self, event: bytes) -> None:
        """Send an event of the stream."""
        ...


class CallExchange(ResponseWriter, Protocol):
    """A model call over HTTP, and the way back to its caller."""

    extra_headers: dict[str, str]
    """Headers of the call's reply, whatever it is."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers, case-insensitive."""
        ...

    @property
    def credentials(self) -> Sequence[str]:
        """The `Authorization` headers, and those made from the key headers of other clients."""
        ...

    @property
    def rollout(self) -> str | None:
        """The rollout or trace id of the URL."""
        ...

    def agent(self) -> Agent:
        """The calling agent, if the headers name it."""
        ...

    async def body(self, held: ExitStack) -> bytes:
        """The whole body; the memory that it takes counts until `held` is closed. Raises a `Refusal`: 413, 408, 503."""
        ...

    async def unless_gone(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work; it is cancelled if the caller disconnects."""
        ...


class EngineUnreachable(Exception):  # noqa: N818
    """No connection was made, so nothing was sent and another replica may be tried."""


class EngineBroke(Exception):  # noqa: N818
    """The engine was asked and gave no complete reply. `timed_out`: because the time was over.

    `too_long`: the gateway cut it off. `misframed`: the connection ended in order, and the reply before its end. Once a
    reply has begun, none of the three says that the server is down.
    """

    def __init__(self, message: str, timed_out: bool = False, too_long: bool = False, misframed: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.is_down = not (timed_out or too_long or misframed)


DONE = b"[DONE]"
"""The last payload of a stream."""


class EngineReply(Protocol):
    """A reply whose head was received."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers, case-insensitive."""
        ...

    async def read(self) -> bytes:
        """The whole body. Raises `EngineBroke`."""
        ...

    def payloads(self) -> AsyncIterator[bytes]:
        """The payloads of the body's server-sent events as they come. Raises `EngineBroke`."""
        ...

    def close(self) -> None:
        """Close it; a reply that was not read to its end is cancelled at the engine."""
        ...


class Engines(Protocol):
    """Client of the policy servers and other upstreams."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeouts: Timeouts) -> EngineReply:
        """Send a request and wait for the reply's head. Raises `EngineUnreachable` or `EngineBroke`."""
        ...


@dataclass(frozen=True, slots=True)
class AttemptStatus:
    """Whether an attempt may call models, and its mode."""

    open: bool
    """False if the attempt has ended or has not started."""
    mode: str = "train"


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A rollout, as the API shows it."""

    attempt: int
    state: RolloutState
    status: str | None
    spec: RolloutSpec
    started_at: datetime | None
    runner: str | None
    interrupted: int = 0
    """How many of its attempts were interrupted."""


class EndResult(StrEnum):
    """The result of reporting an attempt's end."""

    FIRST = "first"
    """This report is now the attempt's end."""
    EARLIER = "earlier"
    """An earlier report is the end and stays it."""
    NOT_RUNNING = "not_running"
    """The attempt is not running, and no end of it is stored."""
    LEASED = "leased"
    """The lease was renewed in the meantime."""


@dataclass(frozen=True, slots=True)
class EndOutcome:
    """The attempt's end and its calls; neither changes after the first end."""

    result: EndResult
    stored: bytes = b""
    call_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """Numbers of rollouts by state."""

    queued: int
    """Includes those that wait for the time of their next attempt."""
    running: int
    ended: int
    delayed: int = 0
    """Queued rollouts whose next attempt may not start yet."""
    lanes: Mapping[str, int] = field(default_factory=dict)
    """`<mode>:<project>` → number of rollouts that can be claimed."""
    paused: tuple[str, ...] = ()
    """Paused projects; `*` means all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallInFlight:
    """A model call whose answer has not begun."""

    call_id: str
    ref: AttemptRef | None
    """Its attempt; None for a call of no rollout."""
    model: str
    project: str | None = None
    seconds: float
    """How long it has waited for the model."""


class EarlierCalls(Protocol):
    """Earlier calls of an attempt, by the digest of their conversation. Every method raises `Retry`."""

    async def find(self, ref: AttemptRef, digests: Sequence[bytes]) -> tuple[bytes | None, bool]:
        """The call of the first known digest, and whether any call of the attempt is known."""
        ...

    async def keep(self, ref: AttemptRef, calls: Mapping[bytes, bytes]) -> None:
        """Store calls by their digests."""
        ...


class KeptResponses(Protocol):
    """Fields of an owner's responses, bounded in bytes; old ones go. Every method raises `Retry`."""

    async def find(self, owner: str, fields: Sequence[str]) -> list[bytes | None]:
        """The values of the fields, in order; None for one that is not kept."""
        ...

    async def keep(self, owner: str, fields: Mapping[str, bytes]) -> bool:
        """Store the fields; False, without effect, if they are too large. Fields stored together go together."""
        ...

    async def drop(self, owner: str, field: str) -> bool:
        """Delete a field; False if it is not kept."""
        ...


NOT_WHOLE = "the queue's state is being read from the log"


class RolloutStore(Protocol):
    """Tasks, the queue, leases, ends and call ids. Each method is atomic and idempotent."""

    async def accept_tasks(self, events: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """Store each (task id, event) unless the task has an event; returns the stored ones, in order."""
        ...

    async def task(self, task_id: str) -> bytes | None:
        """The stored event of a task."""
        ...

    async def enqueue(self, rollouts: Sequence[tuple[str, RolloutSpec]]) -> None:
        """Queue the rollouts that are not known."""
        ...

    async def claim(
        self, limit: int, runner: str, now: datetime, lease_until: datetime, project: str | None = None
    ) -> list[Running]:
        """Claim up to `limit` rollouts, of one project or all, under a lease; none while paused.

        Modes and projects with waiting rollouts get their shares (weighted fair queueing). Within one, the highest
        priority comes first, then the earliest.
        """
        ...

    async def has_state(self) -> bool:
        """Whether the state is complete; nothing is claimed before."""
        ...

    async def restore(self, rollouts: Sequence[Restored]) -> list[bool]:
        """Restore rollouts that are unknown, or known only as waiting for an earlier attempt. Returns whether each was.

        An attempt that was running is restored together with its end, so it has no lease and no other end comes first.
        """
        ...

    async def state_restored(self, ended: int) -> None:
        """Mark the state as complete, with the number of ended rollouts."""
        ...

    async def unclaim(self, refs: Sequence[AttemptRef]) -> None:
        """Return claimed attempts to their places in the queue."""
        ...

    async def begin(self, running: Running, lease_until: datetime) -> bool:
        """Start an attempt that was not queued. Returns False, without effect, if its rollout is known.

        Raises `Retry` while the state is incomplete, as the rollout may be known.
        """
        ...

    async def extend(self, ref: AttemptRef, lease_until: datetime) -> bool:
        """Renew a lease; False if there is none."""
        ...

    async def attempt_status(self, ref: AttemptRef) -> AttemptStatus:
        """Whether the attempt may call models; attempts of unknown rollouts may."""
        ...

    async def add_call(self, ref: AttemptRef, call_id: str, note: CallNote | None = None) -> bool:
        """List a call of the attempt, with its result. Returns False, without effect, if it may not call models."""
        ...

    async def last_call(self, ref: AttemptRef) -> LastCall | None:
        """The result of the attempt's last call."""
        ...

    async def over(self, refs: Sequence[AttemptRef]) -> list[AttemptRef]:
        """Those of the attempts that may not call models any more."""
        ...

    async def show_calls(self, replica: str, calls: Sequence[CallInFlight], ttl_s: float) -> None:
        """Replace what a replica shows of its calls in flight; forgotten after `ttl_s`."""
        ...

    async def calls_in_flight(self) -> list[CallInFlight]:
        """What all replicas show, the oldest call first."""
        ...

    async def unanswered(self, ref: AttemptRef) -> list[CallInFlight]:
        """Those of the attempt, without calls that were listed since they were shown."""
        ...

    async def kept_version(self, ref: AttemptRef, policy: str) -> int | None:
        """The policy version that the attempt keeps to; None before its first call."""
        ...

    async def keep_version(self, ref: AttemptRef, policy: str, version: int, instead_of: int | None) -> None:
        """Let the attempt keep to `version`, unless it now keeps to a version other than `instead_of`."""
        ...

    async def end(
        self, ref: AttemptRef, stored: bytes, now: datetime, lease_over: bool, interrupted: bool = False
    ) -> EndOutcome:
        """End the attempt; the first end wins and no calls follow. `lease_over`: only if the lease is over at `now`.

        `interrupted`: raise the rollout's number of interrupted attempts in the same step.
        """
        ...

    async def withdraw(self, ref: AttemptRef, stored: bytes, now: datetime) -> EndOutcome:
        """End an attempt that waits in the queue, and remove it; NOT_RUNNING if it does not wait."""
        ...

    async def find_end(self, ref: AttemptRef) -> EndOutcome | None:
        """The stored end of an attempt."""
        ...

    async def settle(self, ref: AttemptRef, final: bool, status: str, retry_at: datetime | None = None) -> None:
        """After the end is in the log: mark the rollout ended, or queue its next attempt for `retry_at`. Works once."""
        ...

    async def pause(self, project: str | None, paused: bool, at: datetime) -> None:
        """Pause or resume a project (None: all); a later decision than `at` is kept."""
        ...

    async def find(self, rollout_id: str) -> RolloutView | None:
        """A rollout; None if it is unknown or expired."""
        ...

    async def expired(self, now: datetime, limit: int) -> list[AttemptRef]:
        """Attempts with expired leases."""
        ...

    async def unsettled(self, ended_before: datetime, limit: int) -> list[AttemptRef]:
        """Attempts that ended before that time and are not settled."""
        ...

    async def counts(self) -> QueueCounts:
        """Numbers of rollouts by state."""
        ...


class Rates(Protocol):
    """Remaining quotas of limited keys, shared by all replicas."""

    async def take(self, key_id: str, limits: KeyLimits, now: datetime) -> Level:
        """Count one call if the quota allows it."""
        ...

    async def charge(self, key_id: str, limits: KeyLimits, tokens: int, now: datetime) -> None:
        """Subtract what a call used."""
        ...


class History(Protocol):
    """The log from its beginning."""

    def events(self, topic: str) -> AsyncGenerator[Event, None]:
        """The events of `topic` up to its current end, in order per key."""
        ...
