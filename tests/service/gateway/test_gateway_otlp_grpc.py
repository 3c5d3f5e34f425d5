"""OTLP over gRPC, by the official exporter and by hand."""

import asyncio
import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from leyden.events.otlp import Signal
from leyden.gateway.core.keys import rollout_key
from leyden.gateway.rpc import DETAILS, SERVICES, GrpcLimits, GrpcOtlp
from leyden.ingest.core.decode import decode
from leyden.stack.ports import free_port
from service.gateway.gateway_fakes import API_KEY, REF, SECRET, Bench, bench

KEY = (("authorization", f"Bearer {API_KEY}"),)


@asynccontextmanager
async def door(gate: Bench) -> AsyncIterator[str]:
    """The gRPC door of `gate`, on a free port."""
    limits = GrpcLimits(max_streams=8, max_message_bytes=gate.gateway.otlp.bodies.max_bytes)
    server = GrpcOtlp(gate.gateway.otlp, "127.0.0.1", 0, limits).server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@pytest.fixture
async def address(gate: Bench) -> AsyncIterator[str]:
    async with door(gate) as made:
        yield made


async def call(
    address: str, body: bytes, metadata: Any = KEY, signal: Signal = Signal.TRACES, compression: Any = None
) -> bytes:
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options, compression=compression) as channel:
        reply: bytes = await channel.unary_unary(f"/{SERVICES[signal]}/Export")(body, metadata=metadata, timeout=20)
        return reply


def spans(name: str = "work") -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name=name, trace_id=bytes([9] * 16))
    return request.SerializeToString()


def retry_delay(error: grpc.aio.AioRpcError) -> float | None:
    """Of the `RetryInfo` in the answer; without one an exporter must not send RESOURCE_EXHAUSTED again."""
    raw = next((value for name, value in error.trailing_metadata() or () if name == DETAILS), None)
    for detail in Status.FromString(raw).details if raw else ():
        if detail.Unpack(info := RetryInfo()):
            return info.retry_delay.ToTimedelta().total_seconds()
    return None


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.NoCompression])
async def test_spans_of_the_official_exporter_reach_the_log(
    gate: Bench, address: str, compression: grpc.Compression
) -> None:
    def work() -> None:
        exporter = OTLPSpanExporter(address, insecure=True, headers=KEY, compression=compression)
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("t").start_as_current_span("work"):
            pass
        provider.shutdown()

    await asyncio.to_thread(work)
    ((topic, key, value),) = gate.log.raw
    span = ExportTraceServiceRequest.FromString(value).resource_spans[0].scope_spans[0].spans[0]
    assert (topic, key, span.name) == ("otlp.v1", span.trace_id.hex(), "work")
    assert gate.log.raw_headers == [{"content-type": "application/x-protobuf", "leyden-signal": "traces"}]


async def test_log_records_of_the_official_exporter_reach_the_log(gate: Bench, address: str) -> None:
    def work() -> None:
        provider = LoggerProvider()
        exporter = OTLPLogExporter(address, insecure=True, headers=KEY)
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        provider.get_logger("t").emit(body="hello", timestamp=1)
        provider.shutdown()

    await asyncio.to_thread(work)
    assert gate.log.raw_headers[0]["leyden-signal"] == "logs"


async def test_the_official_exporter_tries_again_and_nothing_is_lost(gate: Bench, address: str) -> None:
    gate.log.failures = 1

    def work() -> None:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(address, insecure=True, headers=KEY)))
        provider.get_tracer("t").start_span("work").end()
        provider.shutdown()

    await asyncio.to_thread(work)
    assert (len(gate.log.raw), gate.log.failures) == (1, 0)


async def test_a_rollouts_key_and_the_session_header_bind(gate: Bench, address: str) -> None:
    key = rollout_key(SECRET.encode(), REF)
    await call(address, spans(), (("authorization", f"Bearer {key}"),))
    await call(address, spans(), (*KEY, ("x-leyden-rollout", REF.trace_id)))
    bound = [(one["leyden-attempt"], one["leyden-attempt-by"]) for one in gate.log.raw_headers]
    assert bound == [(REF.trace_id, "key"), (REF.trace_id, "url")]


async def test_bytes_that_are_no_text_cost_one_character_not_the_request(gate: Bench, address: str) -> None:
    await call(address, (spans("one") + spans("two !") + spans("three")).replace(b"two !", b"two \xf0"))
    found = decode(gate.log.raw[0][2], gate.log.raw_headers[0]).traces.resource_spans
    assert [group.scope_spans[0].spans[0].name for group in found] == ["one", "two �", "three"]


async def test_metrics_are_answered_with_a_warning(gate: Bench, address: str) -> None:
    reply = ExportMetricsServiceResponse.FromString(await call(address, b"", signal=Signal.METRICS))
    assert reply.partial_success.error_message
    assert gate.log.raw == []


async def test_a_refusal_is_a_status_that_says_whether_to_try_again(gate: Bench, address: str) -> None:
    async def refused(body: bytes, metadata: Any = KEY) -> tuple[str, float | None]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(address, body, metadata)
        return caught.value.code().name, retry_delay(caught.value)

    assert await refused(b"\xff\xff no protobuf") == ("INVALID_ARGUMENT", None)
    assert await refused(spans(), ()) == ("UNAUTHENTICATED", None)
    assert await refused(spans(), (("api-key", "nobody's"),)) == ("UNAUTHENTICATED", None)
    gate.log.failures = 1
    assert await refused(spans()) == ("UNAVAILABLE", 1.0)
    assert gate.log.raw == []


async def test_more_requests_than_places_are_unavailable() -> None:
    async with bench(max_concurrent_traces=1) as gate, door(gate) as address:
        with gate.gateway.otlp.limiter.slot(), pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(address, spans())
        assert (caught.value.code().name, retry_delay(caught.value)) == ("UNAVAILABLE", 1.0)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, None])
async def test_a_message_over_the_limit_is_refused_for_good(compression: grpc.Compression | None) -> None:
    async with bench(max_trace_bytes=10_000) as gate, door(gate) as address:
        body = spans("x" * 20_000)
        assert len(gzip.compress(body)) < 1000
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(address, body, compression=compression)
        assert (caught.value.code().name, retry_delay(caught.value)) == ("RESOURCE_EXHAUSTED", None)
        assert re.search("larger than", caught.value.details() or "")
        await call(address, spans("x" * 9_000), compression=compression)
        assert len(gate.log.raw) == 1


async def test_serving_ends_with_its_task_and_frees_the_port(gate: Bench) -> None:
    port = free_port()
    for _ in range(2):
        serving = asyncio.create_task(GrpcOtlp(gate.gateway.otlp, "127.0.0.1", port, GrpcLimits(max_streams=8)).serve())
        async with asyncio.timeout(10):
            while True:
                try:
                    await call(f"127.0.0.1:{port}", spans())
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
        with pytest.raises(RuntimeError):
            await GrpcOtlp(gate.gateway.otlp, "127.0.0.1", port, GrpcLimits(max_streams=8)).serve()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert len(gate.log.raw) == 2
