"""OTLP over HTTP, by the official exporter and by hand."""

import asyncio
import gzip

import httpx
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from leyden.gateway.core.keys import rollout_key
from service.gateway.gateway_fakes import API_KEY, REF, SECRET, Bench, bench

PROTOBUF = {"content-type": "application/x-protobuf"}


def spans(name: str = "work") -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name=name)
    return request.SerializeToString()


@pytest.mark.parametrize("compression", [Compression.Gzip, Compression.NoCompression])
async def test_spans_of_the_official_exporter_reach_the_log(gate: Bench, compression: Compression) -> None:
    exporter = OTLPSpanExporter(
        f"{gate.url}/v1/traces", headers={"authorization": f"Bearer {API_KEY}"}, compression=compression
    )

    def work() -> None:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("t").start_as_current_span("work"):
            pass
        provider.shutdown()

    await asyncio.to_thread(work)
    ((topic, key, value),) = gate.log.raw
    assert (topic, key) == ("otlp.v1", "")
    assert ExportTraceServiceRequest.FromString(value).resource_spans[0].scope_spans[0].spans[0].name == "work"


async def test_the_bytes_are_forwarded_as_they_are(gate: Bench, http: httpx.AsyncClient) -> None:
    body = spans() + b"\xfa\x3e\x03abc"  # a field that this schema does not know
    for content, extra in ((body, {}), (gzip.compress(body), {"content-encoding": "gzip"})):
        reply = await http.post("/v1/traces", content=content, headers=PROTOBUF | extra)
        assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-protobuf")
        ExportTraceServiceResponse.FromString(reply.content)
    assert [value for _, _, value in gate.log.raw] == [body, body]


async def test_a_rollouts_key_may_send_spans(gate: Bench, http: httpx.AsyncClient) -> None:
    key = {"authorization": f"Bearer {rollout_key(SECRET.encode(), REF)}"}
    assert (await http.post("/v1/traces", content=spans(), headers=PROTOBUF | key)).status_code == 200
    assert (await http.post("/v1/traces", content=spans(), headers=PROTOBUF | {"authorization": ""})).status_code == 401


async def test_an_empty_request_is_fine_and_kept_out_of_the_log(gate: Bench, http: httpx.AsyncClient) -> None:
    assert (await http.post("/v1/traces", content=b"", headers=PROTOBUF)).status_code == 200
    assert gate.log.raw == []


async def test_what_is_no_otlp_is_refused(gate: Bench, http: httpx.AsyncClient) -> None:
    cases = [
        (b"\xff\xff no protobuf", PROTOBUF, 400),
        (b"{}", {"content-type": "application/json"}, 415),
        (spans(), PROTOBUF | {"content-encoding": "br"}, 415),
        (spans(), PROTOBUF | {"content-encoding": "gzip"}, 400),
        (gzip.compress(spans())[:-9], PROTOBUF | {"content-encoding": "gzip"}, 400),
    ]
    for content, headers, status in cases:
        reply = await http.post("/v1/traces", content=content, headers=headers)
        assert reply.status_code == status
        assert Status.FromString(reply.content).message
    assert gate.log.raw == []


async def test_the_limit_is_that_of_the_unpacked_body() -> None:
    async with bench(max_trace_bytes=10_000) as gate, httpx.AsyncClient(trust_env=False) as http:
        bomb = gzip.compress(spans("x" * 20_000))
        assert len(bomb) < 10_000
        headers = PROTOBUF | {"content-encoding": "gzip", "authorization": f"Bearer {API_KEY}"}
        assert (await http.post(f"{gate.url}/v1/traces", content=bomb, headers=headers)).status_code == 413
        fits = gzip.compress(spans("x" * 9_000))
        assert (await http.post(f"{gate.url}/v1/traces", content=fits, headers=headers)).status_code == 200


async def test_unlogged_spans_are_not_accepted(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.log.failures = 1
    reply = await http.post("/v1/traces", content=spans(), headers=PROTOBUF)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert (await http.post("/v1/traces", content=spans(), headers=PROTOBUF)).status_code == 200
