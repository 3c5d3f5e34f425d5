"""The reward service on fakes: a log that remembers, stores in memory, and a fuse that kills at any step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from fakes import FakePublisher, FakeReading
from leyden.clock import Clock, ManualClock
from leyden.events import Event, ModelCallRecorded, SpanRecorded
from leyden.events.codec import encode
from leyden.kafka.delivered import Delivered
from leyden.reward.core.answer import Answer
from leyden.reward.core.assess import Rulebook
from leyden.reward.functions import RolloutView, exact_match
from leyden.reward.handlers import RewardConfig, RewardHandlers
from leyden.reward.ports import Functions
from leyden.reward.sandbox.call import call_one
from leyden.reward.sweep import Sweeper
from leyden.state import MemoryEvidenceStore
from leyden.state.evidence import Items
from unit.reward.reward_builders import T0

NOW = T0 + timedelta(seconds=20)


class KilledError(BaseException):
    """The process died here."""


class Fuse:
    """Dies at the n-th step: steps are counted before and after every effect on the world."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps - 1 == self.at:
            raise KilledError


class FakeWaiting:
    """`WaitingAttempts` in memory."""

    def __init__(self, clock: Clock, fuse: Fuse | None = None) -> None:
        self.deadlines: dict[str, datetime] = {}
        self.readings = 0
        self.unread_since: dict[str, int] = {}
        self._clock = clock
        self._fuse = fuse or Fuse()
        self._behind_until: datetime | None = None

    @property
    def all(self) -> set[str]:
        return {*self.unread_since, *self.deadlines}

    async def add(self, subjects: Sequence[str]) -> None:
        self._fuse.step()
        self.unread_since |= {subject: self.readings for subject in subjects if subject not in self.all}
        self._fuse.step()

    async def any_due(self, now: datetime) -> bool:
        return bool(self.unread_since) or any(at <= now for at in self.deadlines.values())

    async def begin_reading(self) -> int:
        self.readings += 1
        return self.readings

    async def unread(self, before: int, limit: int) -> list[str]:
        found = [subject for subject, number in self.unread_since.items() if number < before]
        return sorted(found, key=self.unread_since.__getitem__)[:limit]

    async def have_read(self, subjects: Sequence[str], until: datetime) -> None:
        self._fuse.step()
        for subject in subjects:
            if self.unread_since.pop(subject, None) is not None:
                self.deadlines.setdefault(subject, until)
        self._fuse.step()

    async def among(self, subjects: Sequence[str]) -> dict[str, bool]:
        return {subject: subject in self.unread_since for subject in dict.fromkeys(subjects) if subject in self.all}

    async def remove(self, subjects: Sequence[str]) -> None:
        self._fuse.step()
        for subject in subjects:
            self.deadlines.pop(subject, None)
            self.unread_since.pop(subject, None)
        self._fuse.step()

    async def due(self, now: datetime, limit: int) -> list[str]:
        return sorted((s for s, at in self.deadlines.items() if at <= now), key=self.deadlines.__getitem__)[:limit]

    async def put_off(self, subjects: Sequence[str], until: datetime) -> None:
        self._fuse.step()
        self.deadlines |= {subject: until for subject in subjects if subject in self.deadlines}

    async def mark_behind(self, for_s: float) -> None:
        self._behind_until = self._clock.now() + timedelta(seconds=for_s)

    async def behind(self) -> bool:
        return self._behind_until is not None and self._clock.now() < self._behind_until


class FusedEvidence(MemoryEvidenceStore):
    """The store in memory, on the fuse."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self._fuse = fuse

    async def add(self, items: Iterable[tuple[str, str, bytes]]) -> set[str]:
        self._fuse.step()
        closed = await super().add(items)
        self._fuse.step()
        return closed

    async def load(self, subjects: Sequence[str]) -> Mapping[str, Items]:
        self._fuse.step()
        return await super().load(subjects)

    async def close(self, subjects: Sequence[str]) -> None:
        self._fuse.step()
        await super().close(subjects)
        self._fuse.step()


class RewardLog(FakePublisher):
    """Keeps every record that it acknowledged; one that dies half-way keeps the first half."""

    def on(self, topic: str) -> list[Event]:
        """The events of a topic."""
        return [record.event for record in self.published if record.topic == topic and isinstance(record.event, Event)]

    def distinct(self, topic: str) -> dict[str, bytes]:
        """Event id → bytes of the first record of that id."""
        found: dict[str, bytes] = {}
        for event in self.on(topic):
            found.setdefault(event.event_id, encode(event))
        return found


class CalledHere:
    """`Functions` that are called on the spot."""

    def __init__(self, functions: Mapping[str, Callable[[RolloutView], Any]]) -> None:
        self._functions = functions

    async def answers(self, views: Sequence[RolloutView]) -> list[Mapping[str, Answer]]:
        return [{name: call_one(function, view) for name, function in self._functions.items()} for view in views]


@dataclass
class World:
    """One reward service and what is around it."""

    rulebook: Rulebook
    decides: bool = True
    fuse: Fuse = field(default_factory=Fuse)
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    functions: Functions = field(default_factory=lambda: CalledHere({"match": exact_match}))

    def __post_init__(self) -> None:
        self.evidence = FusedEvidence(self.fuse)
        self.waiting = FakeWaiting(self.clock, self.fuse)
        self.log = RewardLog(self.fuse.step)
        self.reading = FakeReading()
        config = RewardConfig(self.rulebook, self.decides)
        self.handlers = RewardHandlers(
            evidence=self.evidence,
            waiting=self.waiting,
            publisher=self.log,
            config=config,
            clock=self.clock,
            functions=self.functions,
        )
        self.restart()
        self._fed_back = 0

    def restart(self) -> None:
        """A process that lost what it had in memory."""
        self.sweeper = sweeper_of(self.handlers, self.waiting, self.reading, self.clock)

    async def deliver(self, *events: Event) -> None:
        """One batch, and a sweep. A process that dies gets the same batch again, as Kafka would give it."""
        batch = [delivered(event, offset) for offset, event in enumerate(events)]
        try:
            await self._take(batch)
        except KilledError:
            self.restart()
            await self._take(batch)

    async def _take(self, batch: Sequence[Delivered[Event]]) -> None:
        await self.handlers.on_batch(batch)
        if self.decides:
            await self.sweeper.sweep()

    async def feed_back(self) -> None:
        """Deliver what the service itself wrote to rollouts.v1, until it writes nothing more."""
        while pending := self.log.on("rollouts.v1")[self._fed_back :]:
            self._fed_back += len(pending)
            await self.deliver(*pending)


def sweeper_of(handlers: RewardHandlers, waiting: FakeWaiting, reading: FakeReading, clock: Clock) -> Sweeper:
    return Sweeper(
        handlers=handlers,
        waiting=waiting,
        reading=reading,
        clock=clock,
        grace_s=30.0,
        interval_s=1.0,
        limit=100,
    )


def delivered(event: Event, offset: int = 0) -> Delivered[Event]:
    topic = {ModelCallRecorded: "model-calls.v1", SpanRecorded: "spans.v1"}.get(type(event), "rollouts.v1")  # type: ignore[call-overload]
    return Delivered(event, topic, "k", 0, offset, f"{topic}/0/{offset}")


MakeWorld = Callable[..., World]
