"""The interface of handlers: the records they get, what they publish, and what their exceptions mean."""

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
    """A consumed record: its event (raw bytes if the topic is not JSON) and its position."""

    event: BodyT_co
    topic: str
    """The topic without its prefix."""
    key: str
    partition: int
    offset: int
    origin: str
    """`topic/partition/offset` where this record was first written; kept by copies and by re-driven dead letters."""
    headers: dict[str, str] = field(default_factory=dict)
    value: bytes = b""
    """The bytes that the event was decoded from."""

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context from the record's headers."""
        return self.headers.get(TRACEPARENT_HEADER)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event to publish. `topic` is without prefix; `traceparent` carries the trace context of its cause."""

    topic: str
    key: str
    event: Event | bytes
    """Bytes must be what `encode` returns for the event; ingest uses them, because objects are too slow for spans."""
    traceparent: str | None = None


BatchHandler = Callable[[Sequence[Delivered[Event]]], Awaitable[None]]
"""Handles a batch. Must be idempotent: it can be called again with the same records, or with some of them.

Raises `Retry`, or `Poison` for some records. Any other exception stops the process, with none of the batch committed.
"""
RawBatchHandler = Callable[[Sequence[Delivered[bytes]]], Awaitable[None]]
"""`BatchHandler` for a topic that is not JSON."""


class Publisher(Protocol):
    """Publishes events."""

    async def publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        """Publish events. Returns once Kafka has acknowledged all of them (acks=all); raises `Retry` otherwise."""
        ...

    async def publish_raw(self, topic: str, key: str, value: bytes, headers: dict[str, str] | None = None) -> None:
        """Publish bytes unchanged to `topic` (without prefix), with the same guarantee as `publish_all`."""
        ...


class Retry(Exception):  # noqa: N818 - named for what follows, not for what happened
    """A temporary failure (a broker, store or engine is unavailable): the same batch is retried after a delay."""


class Poison(Exception):  # noqa: N818
    """Records with invalid data. They go to the dead letters, and the rest of the batch is handled again.

    Raise it only for errors in the data. Any exception other than this and `Retry` is a bug and stops the process.
    """

    def __init__(self, reason: str, record: Delivered[Any], *more: Delivered[Any]) -> None:
        super().__init__(reason)
        self.records = (record, *more)
        """The invalid records; they must be records of the handler's batch."""
