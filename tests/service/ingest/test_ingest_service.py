"""Raw OTLP records through the handler, with a publisher that remembers."""

from collections.abc import Sequence

import pytest

from leyden.events import SpanRecorded
from leyden.ingest.dialects import DIALECTS
from leyden.ingest.handlers import IngestHandlers
from leyden.kafka.delivered import Delivered, Outgoing, Poison
from unit.ingest.otlp_builders import ATTEMPT, FOREIGN_TRACE, ROLLOUT, otlp_request, otlp_span


class FakePublisher:
    def __init__(self) -> None:
        self.published: list[Outgoing] = []
        self.raw: list[tuple[str, str, bytes, dict[str, str]]] = []

    async def publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        self.published += outgoing

    async def publish_raw(self, topic: str, key: str, value: bytes, headers: dict[str, str] | None = None) -> None:
        self.raw.append((topic, key, value, headers or {}))


def record(value: bytes, offset: int = 0) -> Delivered[bytes]:
    return Delivered(value, "otlp.v1", "k", 0, offset, f"otlp.v1/0/{offset}")


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def handlers(publisher: FakePublisher) -> IngestHandlers:
    return IngestHandlers(publisher, DIALECTS)


async def test_spans_are_keyed_by_rollout_else_by_trace(handlers: IngestHandlers, publisher: FakePublisher) -> None:
    request = otlp_request(otlp_span(), otlp_span(trace_id=FOREIGN_TRACE))
    await handlers.on_otlp([record(request.SerializeToString())])
    assert [(o.topic, o.key) for o in publisher.published] == [("spans.v1", ROLLOUT), ("spans.v1", FOREIGN_TRACE)]


async def test_a_span_sent_twice_in_a_batch_is_published_once(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    value = otlp_request(otlp_span()).SerializeToString()
    await handlers.on_otlp([record(value), record(value, 1)])
    assert len(publisher.published) == 1


async def test_a_redelivered_batch_publishes_the_same_events(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    batch = [record(otlp_request(otlp_span(), otlp_span(span_id="00000000000000a2")).SerializeToString())]
    await handlers.on_otlp(batch)
    first = list(publisher.published)
    await handlers.on_otlp(batch)
    assert publisher.published == first + first


async def test_bytes_that_are_no_otlp_are_poison_and_publish_nothing(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    good = record(otlp_request(otlp_span()).SerializeToString())
    with pytest.raises(Poison, match="not an OTLP trace request"):
        await handlers.on_otlp([good, record(b"\xff\xff\xff not protobuf", 1)])
    assert publisher.published == []


async def test_one_bad_span_goes_to_the_dead_letters_without_its_neighbours(
    handlers: IngestHandlers, publisher: FakePublisher
) -> None:
    bad = otlp_span(span_id="00")
    await handlers.on_otlp([record(otlp_request(bad, otlp_span()).SerializeToString(), 7)])
    [good] = publisher.published
    assert isinstance(good.event, SpanRecorded)
    assert good.event.trace_id == ATTEMPT.trace_id
    [(topic, key, value, headers)] = publisher.raw
    assert (topic, key, headers["leyden-origin"]) == ("otlp.v1.dlq", "k", "otlp.v1/0/7")
    assert "span id" in headers["leyden-error"]
    assert value == otlp_request(bad).SerializeToString()


async def test_an_empty_request_is_nothing(handlers: IngestHandlers, publisher: FakePublisher) -> None:
    await handlers.on_otlp([record(b"")])
    assert (publisher.published, publisher.raw) == ([], [])
