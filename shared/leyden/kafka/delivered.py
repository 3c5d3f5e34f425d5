"""What a handler is given and what it gives back to be published; and what its exceptions mean."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from leyden.events import Event

ORIGIN_HEADER = "leyden-origin"
CLAIM_HEADER = "leyden-claim"
ERROR_HEADER = "leyden-error"
TRACEPARENT_HEADER = "traceparent"

BodyT_co = TypeVar("BodyT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Delivered(Generic[BodyT_co]):
    """One record of a topic: its event (or its raw bytes where the topic is not JSON) and where it came from."""

    event: BodyT_co
    topic: str
    """The topic without its prefix."""
    key: str
    partition: int
    offset: int
    origin: str
    """`topic/partition/offset` of the first place that held this record; survives copies and re-driven dead letters."""
    headers: dict[str, str] = field(default_factory=dict)
    value: bytes = b""
    """The record's bytes, from which the event was decoded."""

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context that travelled with the record."""
        return self.headers.get(TRACEPARENT_HEADER)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event to publish, or its bytes. `topic` is without prefix; `traceparent` passes the cause's context on."""

    topic: str
    key: str
    event: Event | bytes
    """Bytes: what `encode` would give of the event; for a writer whose events are too many to be built as objects."""
    traceparent: str | None = None


BatchHandler = Callable[[Sequence[Delivered[Event]]], Awaitable[None]]
"""Handles a batch whole. Called again with the same records, or with fewer of them, it changes nothing more. Raises
`Retry`, or `Poison` that names records; anything else stops the process, with nothing of the batch committed."""
RawBatchHandler = Callable[[Sequence[Delivered[bytes]]], Awaitable[None]]
"""The same for a topic that is not JSON."""


class Publisher(Protocol):
    """Where a service's events go."""

    async def publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        """Publish `outgoing`; returns when Kafka has acknowledged every one (acks=all), else raises `Retry`."""
        ...

    async def publish_raw(self, topic: str, key: str, value: bytes, headers: dict[str, str] | None = None) -> None:
        """Publish bytes as they are to `topic` (without prefix); the same promise."""
        ...


class Retry(Exception):  # noqa: N818 - named for what follows, not for what happened
    """A passing fault (a broker, a store or an engine is away): back off, then the same batch again."""


class Poison(Exception):  # noqa: N818
    """These records can never be handled: they go to the dead letters, and the rest of the batch is handled again.

    Raise it for what is wrong with the data. Whatever else a handler raises is a bug, and stops the process.
    """

    def __init__(self, reason: str, record: Delivered[Any], *more: Delivered[Any]) -> None:
        super().__init__(reason)
        self.records = (record, *more)
        """Records of the batch that the handler was given."""
