"""A reader that keeps its own positions begins exactly there, whatever its consumer fetched before it was placed."""

from collections.abc import Sequence

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from consumer_support import FakeConsumer, consumer_of, record
from fakes import FakePublisher
from leyden.events import Event
from leyden.events.codec import TRANSITIONS, batch_decoder
from leyden.kafka.delivered import Delivered
from leyden.kafka.subscriber import Subscription

VALUE = b'{"type":"t","event_id":"e","event_time":"2026-01-01T00:00:00Z","producer":"p"}'
OFFSETS = st.integers(0, 1010)


class OnlyIdentity(Event):
    """What all events have."""


@given(start=st.none() | OFFSETS, early=st.sets(OFFSETS, max_size=8), read=st.integers(1, 5))
async def test_what_was_fetched_before_the_consumer_was_placed_is_not_handled(
    start: int | None, early: set[int], read: int
) -> None:
    handled: list[int] = []

    async def handle(batch: Sequence[Delivered[Event]]) -> None:
        handled.extend(one.offset for one in batch)

    starts = {} if start is None else {0: start}
    first = start or 0
    subscription = Subscription(
        (TRANSITIONS,), handle, "g", decoders={TRANSITIONS: batch_decoder((OnlyIdentity,))}, starts=lambda: starts
    )
    consumer, partition = consumer_of(subscription, FakePublisher(), []), TopicPartition(TRANSITIONS, 0)
    kafka = FakeConsumer({partition: 2000})
    await consumer.place(kafka, starts)
    await consumer.consume([record(TRANSITIONS, 0, offset, VALUE) for offset in sorted(early)], kafka)
    assert handled == []
    kafka.seek(partition, first + read)
    await consumer.consume([record(TRANSITIONS, 0, offset, VALUE) for offset in range(first, first + read)], kafka)
    assert handled == list(range(first, first + read))
