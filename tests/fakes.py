"""Fakes of the ports that several services share. Fakes that only one service needs are beside its tests."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from leyden.events import Event
from leyden.events.codec import EVENTS_BY_TOPIC, encode
from leyden.kafka.delivered import Delivered, Outgoing, Retry

AnyEvent = TypeVar("AnyEvent", bound=Event)
TOPIC_OF = {kind: topic for topic, kinds in EVENTS_BY_TOPIC.items() for kind in kinds}
"""Event type → its topic, without prefix."""


class FakePublisher:
    """`Publisher` in memory: keeps what it acknowledged, in order, and fails as its test says.

    `step` is called before and after each record is written; what it raises ends the call there, half written.
    """

    def __init__(self, step: Callable[[], None] = lambda: None) -> None:
        self.published: list[Outgoing] = []
        self.raw: list[tuple[str, str, bytes]] = []
        """Topic, key and value of each record of `publish_raw`."""
        self.raw_headers: list[dict[str, str]] = []
        self.failures = 0
        """So many calls from now on raise `Retry`."""
        self.fail_after_write = False
        """Those calls write their records before they raise: Kafka has them, and its acknowledgement was lost."""
        self.acknowledging = asyncio.Event()
        """While it is cleared, calls wait before they write anything."""
        self.acknowledging.set()
        self._step = step

    async def publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        await self.acknowledging.wait()
        failing = self._fails()
        if failing and not self.fail_after_write:
            raise Retry("not acknowledged")
        for one in outgoing:
            self._step()
            self.published.append(one)
            self._step()
        if failing:
            raise Retry("written, but not acknowledged")

    async def publish_raw(self, topic: str, key: str, value: bytes, headers: dict[str, str] | None = None) -> None:
        await self.acknowledging.wait()
        failing = self._fails()
        if failing and not self.fail_after_write:
            raise Retry("not acknowledged")
        self.raw.append((topic, key, value))
        self.raw_headers.append(dict(headers or {}))
        if failing:
            raise Retry("written, but not acknowledged")

    def _fails(self) -> bool:
        failing = self.failures > 0
        self.failures -= failing
        return failing

    def of(self, kind: type[AnyEvent]) -> list[AnyEvent]:
        """Published events of a kind, in order."""
        return [one.event for one in self.published if isinstance(one.event, kind)]

    def delivered(self, topic: str) -> list[Delivered[Event]]:
        """Published events of a topic, as a consumer of one partition gets them."""
        found = [one for one in self.published if one.topic == topic]
        return [
            Delivered(one.event, topic, one.key, 0, offset, f"{topic}/0/{offset}")
            for offset, one in enumerate(found)
            if isinstance(one.event, Event)
        ]

    @property
    def values(self) -> list[bytes]:
        """What Kafka would hold of each published event."""
        return [one.event if isinstance(one.event, bytes) else encode(one.event) for one in self.published]


class FakeReading:
    """`LogReading`: what is in the log has been read, unless `behind`."""

    def __init__(self) -> None:
        self.behind = False

    async def begin(self) -> None:
        """There is nothing to note."""

    async def done(self) -> bool:
        return not self.behind
