"""OTLP from a real exporter's bytes to spans, over a real Kafka: large requests, JSON, gRPC, and garbage in between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import grpc
import httpx
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette

from hostile_spans import hostile, sources
from leyden.clock import ManualClock
from leyden.events import SpanRecorded
from leyden.events.codec import OTLP, SPANS, decode
from leyden.events.otlp import SIGNAL_HEADER
from leyden.gateway.adapters.engines import AiohttpEngines
from leyden.gateway.adapters.log import KafkaLog
from leyden.gateway.app import Gateway
from leyden.gateway.rpc import GrpcLimits, GrpcOtlp
from leyden.ids import AttemptRef
from leyden.ingest.core.limits import Limits
from leyden.ingest.dialects import DIALECTS
from leyden.ingest.handlers import IngestHandlers
from leyden.kafka import Delivered
from leyden.kafka.admin import ensure_topics, topic_partitions
from leyden.kafka.claims import ClaimStore
from leyden.kafka.clients import make_broker
from leyden.kafka.loop import LoopSettings
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.reading import LogReader, read_topics
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.subscriber import BatchConsumer, Subscription
from service.gateway import gateway_fakes as fakes
from service.gateway.gateway_kept_fake import MemoryKeptResponses
from service.gateway.gateway_rates_fake import MemoryRates
from service.gateway.gateway_store_fake import MemoryStore

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]
VECTORS = Path(__file__).parents[1] / "golden" / "otlp"
KEY = {"authorization": f"Bearer {fakes.API_KEY}"}
PROTOBUF = KEY | {"content-type": "application/x-protobuf"}
REF = AttemptRef("1e7de" + "b" * 23, 1)
MIB = 1024 * 1024


class Way:
    """A gateway that writes to a real Kafka, and ingest that reads from it."""

    def __init__(self, kafka: KafkaSettings, prefix: str, folder: Path) -> None:
        self.kafka, self.prefix = kafka, prefix
        self.claims = ClaimStore(f"file://{folder}/claims")
        self.claimed = folder / "claims"
        self.publisher = KafkaPublisher(kafka, prefix, self.claims)
        self.deaths: list[int] = []
        log = KafkaLog(self.publisher, 30.0, 0.0, 30.0)
        engines = AiohttpEngines(4.0, 100, MIB)
        self.gateway = Gateway(
            settings=fakes.settings(),
            store=MemoryStore(),
            engines=engines,
            log=log,
            clock=ManualClock(fakes.START),
            rates=MemoryRates(),
            kept=MemoryKeptResponses(),
        )

    async def post(self, body: bytes, headers: dict[str, str], signal: str = "traces") -> int:
        transport = httpx.ASGITransport(Starlette(routes=self.gateway.routes()))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=60) as http:
            return (await http.post(f"/v1/{signal}", content=body, headers=headers)).status_code

    @asynccontextmanager
    async def ingesting(self) -> AsyncIterator[None]:
        broker = make_broker("ingest", self.kafka)
        clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        handlers = IngestHandlers(self.publisher, DIALECTS, clock, Limits())
        retry = LoopSettings(first_delay_s=0.01, max_delay_s=0.05, dead_letter_limit=3)
        subscription = Subscription((OTLP,), handlers.on_otlp, "ingest", max_records=100)
        consumer = BatchConsumer(
            subscription=subscription,
            settings=self.kafka,
            publisher=self.publisher,
            claims=self.claims,
            prefix=self.prefix,
            retry=retry,
            die=self.deaths.append,
        )
        consumer.register(broker)
        await broker.start()
        try:
            yield
        finally:
            await broker.stop()

    async def records(self, topic: str) -> Sequence[Delivered[bytes]]:
        return [
            Delivered(r.value, topic, "", 0, 0, "", {k: v.decode() for k, v in r.headers})
            async for r in read_topics(self.kafka, self.claims, self.prefix + topic)
        ]

    async def stored_sizes(self, topic: str) -> list[int]:
        """Bytes of each value in Kafka itself: none where it is a claim."""
        partitions = await topic_partitions(self.kafka, [self.prefix + topic])
        async with LogReader(self.kafka) as reader:
            return [len(one.value or b"") async for one in reader.stored(await reader.bounds(partitions))]

    async def spans(self, count: int) -> dict[str, SpanRecorded]:
        """What ingest made, by name, once there are `count`."""
        async with asyncio.timeout(60):
            while len(found := await self.records(SPANS)) < count:
                await asyncio.sleep(0.2)
        events = [decode(SPANS, one.event) for one in found]
        return {event.name: event for event in events if isinstance(event, SpanRecorded)}


@pytest.fixture
async def way(kafka_servers: str, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Way]:
    kafka = KafkaSettings(bootstrap_servers=kafka_servers)
    await ensure_topics(kafka, topic_prefix)
    made = Way(kafka, topic_prefix, tmp_path)
    await made.publisher.start()
    yield made
    await made.publisher.stop()


def spans(count: int, padding: int, first: int = 0) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(first, first + count):
        span = scope.spans.add(
            name=f"span {number}", trace_id=bytes.fromhex(REF.trace_id), span_id=(number + 1).to_bytes(8, "big"),
            start_time_unix_nano=10**18, end_time_unix_nano=10**18 + 1,
        )  # fmt: skip
        span.attributes.add(key="padding").value.string_value = "x" * padding
    return request.SerializeToString()


async def test_requests_larger_than_a_message_of_kafka_arrive_whole(way: Way) -> None:
    async with way.ingesting():
        assert await way.post(spans(40, MIB // 2), PROTOBUF) == 200  # 20 MiB, cut between spans
        assert not way.claimed.exists()
        assert await way.post(spans(1, 9 * MIB, first=40), PROTOBUF) == 200  # one span: a claim check
        assert way.claimed.exists()
        attributes = [{"key": "padding", "value": {"stringValue": "x" * (MIB // 2)}}]
        in_json = [
            {
                "traceId": REF.trace_id,
                "spanId": f"{number + 1:016x}",
                "name": f"span {number}",
                "attributes": attributes,
            }
            for number in range(41, 61)
        ]
        body = orjson.dumps({"resourceSpans": [{"scopeSpans": [{"spans": in_json}]}]})
        assert await way.post(body, KEY | {"content-type": "application/json"}) == 200
        found = await way.spans(61)
    assert set(found) == {f"span {number}" for number in range(61)}
    assert {(span.rollout_id, span.attempt) for span in found.values()} == {REF}
    assert way.deaths == []
    assert max(await way.stored_sizes(OTLP)) < 2 * MIB


async def test_garbage_stops_no_partition(way: Way) -> None:
    """More of it in a row than the consumer forgives: what a key's holder sends must not end the process."""
    async with way.ingesting():
        producer = AIOKafkaProducer(bootstrap_servers=way.kafka.servers)
        await producer.start()
        for number in range(10):
            await producer.send_and_wait(way.prefix + OTLP, b"\xff garbage %d" % number, partition=0)
        await producer.stop()
        assert await way.post(spans(3, 10), PROTOBUF) == 200
        assert len(await way.spans(3)) == 3
    assert way.deaths == []
    assert len(await way.records(OTLP + ".dlq")) == 10


async def test_hostile_spans_of_every_dialect_stop_no_partition(way: Way) -> None:
    """What comes after them on every partition arrives: nothing was let go with them, and nothing died."""
    random = Random(20)
    async with way.ingesting():
        producer = AIOKafkaProducer(bootstrap_servers=way.kafka.servers, max_request_size=2 * MIB)
        await producer.start()
        partitions = sorted(await producer.partitions_for(way.prefix + OTLP))
        for place, (signal, request) in enumerate(one for found in sources().values() for one in found):
            headers = [(SIGNAL_HEADER, signal.encode())]
            for value in (hostile(request, random), hostile(request, random, 20), request.SerializeToString()[:-3]):
                await producer.send(way.prefix + OTLP, value, partition=partitions[place % 6], headers=headers)
        for partition in partitions:
            await producer.send_and_wait(way.prefix + OTLP, spans(1, 10, 1000 + partition), partition=partition)
        await producer.stop()
        last = {f"span {1000 + partition}" for partition in partitions}
        async with asyncio.timeout(60):
            while not last <= set(await way.spans(len(last))):
                await asyncio.sleep(0.2)
    assert way.deaths == []


async def test_a_span_and_a_score_by_json_and_by_grpc_reach_their_rollout(way: Way) -> None:
    server = GrpcOtlp(way.gateway.otlp, "127.0.0.1", 0, GrpcLimits(max_streams=8)).server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with way.ingesting():
        for signal in ("traces", "logs"):
            body = (VECTORS / f"javascript_{signal}.json").read_bytes()
            assert await way.post(body, KEY | {"content-type": "application/json"}, signal) == 200
        method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.unary_unary(method)(spans(1, 10), metadata=tuple(KEY.items()), timeout=20)
        found = await way.spans(3)
    await server.stop(0)
    assert {(span.rollout_id, span.attempt) for span in found.values()} == {REF}
    score = next(span.evaluation for span in found.values() if span.evaluation)
    assert (score.name, score.value) == ("quality", 0.75)
