"""What cannot be handled is kept exactly as it came, however little of it the handler read."""

from collections.abc import Sequence
from pathlib import Path

from aiokafka import ConsumerRecord

from leyden.events import Event
from leyden.events.codec import batch_decoder
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import Delivered, Outgoing, Poison
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.subscriber import BatchConsumer, Subscription

VALUE = b'{"type":"t", "event_id":"e","event_time":"2026-01-01T00:00:00Z","producer":"p","text":"not read", "body":{}}'


class OnlyIdentity(Event):
    """What all events have; the rest of a record is passed over."""


class Kept:
    """A publisher that keeps raw records."""

    def __init__(self) -> None:
        self.raw: list[tuple[str, str, bytes]] = []

    async def publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        raise AssertionError("nothing is published here")

    async def publish_raw(self, topic: str, key: str, value: bytes, headers: dict[str, str] | None = None) -> None:
        self.raw.append((topic, key, value))


async def refuse(batch: Sequence[Delivered[Event]]) -> None:
    """A handler that can do nothing with any of it."""
    raise Poison("never")


async def test_a_dead_letter_has_the_bytes_of_its_record_also_where_the_handler_reads_less(tmp_path: Path) -> None:
    decoders = {"model-calls.v1": batch_decoder((OnlyIdentity,))}
    subscription = Subscription(("model-calls.v1",), refuse, "g", decoders=decoders)
    kept = Kept()
    consumer = BatchConsumer(subscription, KafkaSettings(), kept, ClaimStore(f"file://{tmp_path}"), "")
    values = [VALUE, b'{"type":"no event"}']
    records = [
        ConsumerRecord("model-calls.v1", 0, offset, 0, 0, b"key", value, None, 3, len(value), ())
        for offset, value in enumerate(values)
    ]
    await consumer.handle(records)
    assert sorted(kept.raw) == sorted(("model-calls.v1.dlq", "key", value) for value in values)
