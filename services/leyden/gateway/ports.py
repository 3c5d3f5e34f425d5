"""What the gateway needs from outside. A passing fault of any of them is `leyden.kafka.Retry`; it becomes a 503."""

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from leyden.events import Event, KeyLimits
from leyden.gateway.core.keys import Level
from leyden.gateway.core.reply import CallNote, LastCall
from leyden.gateway.core.request import Agent
from leyden.gateway.core.restoring import Restored
from leyden.gateway.core.rollouts import RolloutSpec, RolloutState, Running
from leyden.gateway.core.upstreams import Timeouts
from leyden.ids import AttemptRef
from leyden.kafka import Publisher


class Log(Publisher, Protocol):
    """A publisher with a deadline: it raises `Retry` when Kafka takes too long."""

    def must_be_up(self) -> None:
        """Raise `Retry` when publishing has just failed, or takes long."""
        ...


class ResponseWriter(Protocol):
    """What a model call's answer is written to: one whole body, or a stream of events."""

    @property
    def started(self) -> bool:
        """Whether any of the answer has left: from then on a failure has to be told as an event."""
        ...

    async def whole(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a plain reply."""
        ...

    async def start(self, headers: Mapping[str, str]) -> None:
        """Begin a stream of server-sent events."""
        ...

    async def write(self, event: bytes) -> None:
        """Send an event of the stream."""
        ...


class CallExchange(ResponseWriter, Protocol):
    """A model call as it comes in over HTTP, and the way back to its caller."""

    extra_headers: dict[str, str]
    """Headers for whatever answer the call gets."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers, looked up in any case."""
        ...

    @property
    def credential(self) -> str | None:
        """The `Authorization` header, or one made of the headers that other clients send their key in."""
        ...

    @property
    def rollout(self) -> str | None:
        """The rollout or trace id of the URL."""
        ...

    def agent(self) -> Agent:
        """Which agent calls, as far as the headers say so."""
        ...

    async def body(self) -> bytes:
        """The whole body. Raises a `Refusal`: 413 or 408."""
        ...

    async def unless_gone(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work; cancelled, and the call over, when the caller leaves before its end."""
        ...


class EngineUnreachable(Exception):  # noqa: N818
    """No connection was made: nothing was sent, another replica may be asked."""


class EngineBroke(Exception):  # noqa: N818
    """The engine was asked and the answer did not come, or not whole. `timed_out` when the time was over.

    `too_long` when it was broken off here. Neither of the two is the server's fault once it has begun to answer.
    """

    def __init__(self, message: str, timed_out: bool = False, too_long: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        self.servers_fault = not (timed_out or too_long)


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
    """The way to the policy servers and to the other upstreams."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeouts: Timeouts) -> EngineReply:
        """Send a request and wait for the answer's head. Raises `EngineUnreachable` or `EngineBroke`."""
        ...


@dataclass(frozen=True, slots=True)
class AttemptStatus:
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
    """Those that wait for the time of their next attempt included."""
    running: int
    ended: int
    delayed: int = 0
    """Of the queued: those whose next attempt may not begin yet."""
    lanes: Mapping[str, int] = field(default_factory=dict)
    """`<mode>:<project>` → how many could be claimed."""
    paused: tuple[str, ...] = ()
    """Projects that are paused; `*` stands for all."""


class EarlierCalls(Protocol):
    """What calls of an attempt said, by the digest of their conversation. Every method raises `Retry`."""

    async def find(self, ref: AttemptRef, digests: Sequence[bytes]) -> tuple[bytes | None, bool]:
        """The call of the first digest (of one or more) that is known, and whether any call of the attempt is."""
        ...

    async def keep(self, ref: AttemptRef, calls: Mapping[bytes, bytes]) -> None:
        """Keep calls by their digests."""
        ...


NOT_WHOLE = "the queue's state is being read from the log"


class RolloutStore(Protocol):
    """Tasks, the queue, leases, ends and call ids. Each method is one atomic step; all may be repeated."""

    async def accept_tasks(self, events: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """(task id, event): keep each event unless its task has one already; returns those that are kept, in order."""
        ...

    async def task(self, task_id: str) -> bytes | None:
        """The event that is kept for a task."""
        ...

    async def enqueue(self, rollouts: Sequence[tuple[str, RolloutSpec]]) -> None:
        """Queue those that are not known."""
        ...

    async def claim(
        self, limit: int, runner: str, now: datetime, lease_until: datetime, project: str | None = None
    ) -> list[Running]:
        """Take up to `limit`, of a project or of all, leased; nothing while paused.

        Each mode of each project has its share as long as it has anything to do (weighted fair queueing); within it
        the highest priority comes first, then who was queued first.
        """
        ...

    async def has_state(self) -> bool:
        """Whether what is here is whole; nothing is claimed until then."""
        ...

    async def restore(self, rollouts: Sequence[Restored]) -> list[bool]:
        """Put back what is not known, or known only as waiting for an earlier attempt; whether it was, for each.

        An attempt that ran is put back with its end, in one step: it has no lease, and no other end comes first.
        """
        ...

    async def state_restored(self, ended: int) -> None:
        """All is back; so many rollouts had ended."""
        ...

    async def unclaim(self, refs: Sequence[AttemptRef]) -> None:
        """Put claimed attempts back where they stood, as if they had not been claimed."""
        ...

    async def begin(self, running: Running, lease_until: datetime) -> bool:
        """An attempt that nobody queued is under way; False, and nothing, when its rollout is known already.

        Raises `Retry` while the state is not whole: it may be known.
        """
        ...

    async def extend(self, ref: AttemptRef, lease_until: datetime) -> bool:
        """Renew a lease; False when there is none."""
        ...

    async def attempt_status(self, ref: AttemptRef) -> AttemptStatus:
        """Whether the attempt may call models; an unknown rollout may."""
        ...

    async def add_call(self, ref: AttemptRef, call_id: str, note: CallNote | None = None) -> bool:
        """List a call of the attempt and note what it came to, unless it may not call models: then False."""
        ...

    async def last_call(self, ref: AttemptRef) -> LastCall | None:
        """What the attempt's last call came to."""
        ...

    async def kept_version(self, ref: AttemptRef, policy: str) -> int | None:
        """The policy's version that the attempt keeps to; None when it has not called it yet."""
        ...

    async def keep_version(self, ref: AttemptRef, policy: str, version: int, instead_of: int | None) -> None:
        """The attempt keeps to `version`, unless it keeps to another than `instead_of` by now."""
        ...

    async def end(self, ref: AttemptRef, stored: bytes, now: datetime, lease_over: bool) -> EndOutcome:
        """The first end wins and closes the attempt for calls. `lease_over`: only if its lease is over at `now`."""
        ...

    async def withdraw(self, ref: AttemptRef, stored: bytes, now: datetime) -> EndOutcome:
        """End an attempt that waits in the queue, which it leaves; NOT_RUNNING when it does not wait."""
        ...

    async def find_end(self, ref: AttemptRef) -> EndOutcome | None:
        """The end that is kept for an attempt."""
        ...

    async def settle(self, ref: AttemptRef, final: bool, status: str, retry_at: datetime | None = None) -> None:
        """The end is in the log: the rollout is ended, or queued as the next attempt from `retry_at` on. Works once."""
        ...

    async def pause(self, project: str | None, paused: bool, at: datetime) -> None:
        """Whether rollouts of a project (None: of all) are handed out; what was said later than `at` stays."""
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


class Rates(Protocol):
    """What limited keys have left, the same for all replicas."""

    async def take(self, key_id: str, limits: KeyLimits, now: datetime) -> Level:
        """Count one call, unless nothing is left."""
        ...

    async def charge(self, key_id: str, limits: KeyLimits, tokens: int, now: datetime) -> None:
        """Take off what a call used."""
        ...


class History(Protocol):
    """The log from its beginning."""

    def events(self, topic: str) -> AsyncGenerator[Event, None]:
        """The events of `topic` up to its end of now, each key's in order."""
        ...
