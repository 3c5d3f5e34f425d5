"""OTLP over HTTP, by the official exporters and by hand."""

import asyncio
import gzip
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import cramjam
import httpx
import orjson
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from leyden.events import KeyCreated
from leyden.gateway.core.keys import rollout_key
from leyden.ids import AttemptRef
from leyden.ingest.core.decode import decode
from service.gateway.gateway_fakes import API_KEY, REF, SECRET, Bench, bench

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json; charset=utf-8"}
KEY = {"authorization": f"Bearer {API_KEY}"}
VECTORS = Path(__file__).parents[2] / "golden" / "otlp"
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": lambda body: bytes(cramjam.zstd.compress(body)),
}


def spans(name: str = "work", count: int = 1) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(count):
        scope.spans.add(name=name, trace_id=bytes([9] * 16), span_id=number.to_bytes(8, "big"))
    return request.SerializeToString()


def key_of(ref: AttemptRef) -> dict[str, str]:
    return {"authorization": f"Bearer {rollout_key(SECRET.encode(), ref)}"}


async def exported(exporter: OTLPSpanExporter) -> None:
    def work() -> None:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("t").start_as_current_span("work"):
            pass
        provider.shutdown()

    await asyncio.to_thread(work)


@pytest.mark.parametrize("compression", list(Compression))
async def test_spans_of_the_official_exporter_reach_the_log(gate: Bench, compression: Compression) -> None:
    await exported(OTLPSpanExporter(f"{gate.url}/v1/traces", headers=KEY, compression=compression))
    ((topic, key, value),) = gate.log.raw
    span = ExportTraceServiceRequest.FromString(value).resource_spans[0].scope_spans[0].spans[0]
    assert (topic, key, span.name) == ("otlp.v1", span.trace_id.hex(), "work")
    assert gate.log.raw_headers == [{"content-type": "application/x-protobuf", "leyden-signal": "traces"}]


async def test_log_records_of_the_official_exporter_reach_the_log(gate: Bench) -> None:
    def work() -> None:
        provider = LoggerProvider()
        exporter = OTLPLogExporter(f"{gate.url}/v1/logs", headers=KEY)
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        provider.get_logger("t").emit(LogRecord(event_name="gen_ai.evaluation.result", timestamp=1))
        provider.shutdown()

    await asyncio.to_thread(work)
    ((_, _, value),) = gate.log.raw
    record = ExportLogsServiceRequest.FromString(value).resource_logs[0].scope_logs[0].log_records[0]
    assert record.event_name == "gen_ai.evaluation.result"
    assert gate.log.raw_headers[0]["leyden-signal"] == "logs"


async def test_the_official_exporter_tries_again_after_a_503_and_nothing_is_lost(gate: Bench) -> None:
    gate.log.failures = 1
    await exported(OTLPSpanExporter(f"{gate.url}/v1/traces", headers=KEY))
    assert len(gate.log.raw) == 1
    assert gate.log.failures == 0


@pytest.mark.parametrize("name", ["javascript", "python"])
@pytest.mark.parametrize("signal", ["traces", "logs"])
async def test_json_of_the_official_exporters_is_taken_as_it_is(
    gate: Bench, http: httpx.AsyncClient, name: str, signal: str
) -> None:
    body = (VECTORS / f"{name}_{signal}.json").read_bytes()
    reply = await http.post(f"/v1/{signal}", content=body, headers=JSON)
    assert (reply.status_code, reply.headers["content-type"], reply.json()) == (200, "application/json", {})
    assert gate.log.raw == [("otlp.v1", "1e7debbbbbbbbbbbbbbbbbbbbbbb0001", body)]
    assert gate.log.raw_headers == [{"content-type": "application/json", "leyden-signal": signal}]


async def test_the_bytes_are_forwarded_as_they_are(gate: Bench, http: httpx.AsyncClient) -> None:
    body = spans() + b"\xfa\x3e\x03abc"  # a field that this schema does not know
    for encoding, encode in {"identity": bytes, "GZIP": gzip.compress, **ENCODERS}.items():
        headers = PROTOBUF | {"content-encoding": encoding}
        reply = await http.post("/v1/traces", content=encode(body), headers=headers)
        assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-protobuf")
        assert not ExportTraceServiceResponse.FromString(reply.content).HasField("partial_success")
    assert {value for _, _, value in gate.log.raw} == {body}
    assert len(gate.log.raw) == 5


async def test_metrics_are_answered_with_a_warning_and_not_kept(gate: Bench, http: httpx.AsyncClient) -> None:
    reply = await http.post("/v1/metrics", content=b"\x0a\x00", headers=PROTOBUF)
    partial = ExportMetricsServiceResponse.FromString(reply.content).partial_success
    assert (reply.status_code, partial.rejected_data_points) == (200, 0)
    assert "OTEL_METRICS_EXPORTER=none" in partial.error_message
    shown = (await http.post("/v1/metrics", content=b"{}", headers=JSON)).json()
    assert shown == {"partialSuccess": {"errorMessage": partial.error_message}}
    assert gate.log.raw == []


async def test_a_rollouts_key_binds_what_it_sends(gate: Bench, http: httpx.AsyncClient) -> None:
    headers = PROTOBUF | key_of(REF)
    assert (await http.post("/v1/traces", content=spans(), headers=headers)).status_code == 200
    assert gate.log.raw[0][1] == REF.trace_id
    bound = {"leyden-attempt": REF.trace_id, "leyden-attempt-by": "key"}
    assert bound.items() <= gate.log.raw_headers[0].items()
    assert (await http.post("/v1/traces", content=spans(), headers=PROTOBUF | {"authorization": ""})).status_code == 401


async def test_spans_that_come_after_their_rollouts_end_are_taken_and_bound(
    gate: Bench, http: httpx.AsyncClient
) -> None:
    begun = (await http.post("/leyden/v1/rollouts", json={})).json()
    end = f"/leyden/v1/rollouts/{begun['rollout_id']}/attempts/0/end"
    assert (await http.post(end, json={"status": "succeeded"})).status_code == 200
    by_key = {"authorization": f"Bearer {begun['api_key']}"}
    for url, extra in (("/v1/traces", by_key), (f"/rollouts/{begun['trace_id']}/v1/traces", {})):
        assert (await http.post(url, content=spans(), headers=PROTOBUF | extra)).status_code == 200
        assert gate.log.raw_headers[-1]["leyden-attempt"] == begun["trace_id"]


async def test_the_base_url_of_a_rollout_binds_what_is_sent_there(gate: Bench, http: httpx.AsyncClient) -> None:
    base = f"/rollouts/{REF.trace_id}/v1"
    ways = (f"{base}/traces", {}), (f"{base}/v1/traces", {}), ("/v1/traces", {"x-leyden-rollout": REF.trace_id})
    for url, extra in ways:
        reply = await http.post(url, content=spans(), headers=PROTOBUF | extra)
        assert reply.status_code == 200
        assert gate.log.raw_headers[-1]["leyden-attempt"] == REF.trace_id
        assert gate.log.raw_headers[-1]["leyden-attempt-by"] == "url"
    other = AttemptRef(REF.rollout_id, 7)
    taken = await http.post(f"/rollouts/{other.trace_id}/v1/traces", content=spans(), headers=PROTOBUF | key_of(REF))
    assert taken.status_code == 403
    assert (await http.post("/rollouts/nothing/v1/logs", content=b"", headers=PROTOBUF)).status_code == 404


async def test_the_project_of_the_key_goes_along(gate: Bench, http: httpx.AsyncClient) -> None:
    key = (await http.post("/leyden/v1/keys", json={"name": "n", "project": "search", "scopes": ["agent"]})).json()
    (created,) = gate.log.of(KeyCreated)
    gate.gateway.ring.note_created(created)
    headers = PROTOBUF | {"authorization": f"Bearer {key['key']}"}
    assert (await http.post("/v1/traces", content=spans(), headers=headers)).status_code == 200
    assert gate.log.raw_headers[0]["leyden-project"] == "search"


async def test_an_empty_request_is_fine_and_kept_out_of_the_log(gate: Bench, http: httpx.AsyncClient) -> None:
    for body, headers in ((b"", PROTOBUF), (b"{}", JSON), (b'{"resourceSpans":[]}', JSON)):
        assert (await http.post("/v1/traces", content=body, headers=headers)).status_code == 200
    assert gate.log.raw == []


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"\xff\xff no protobuf", PROTOBUF, 400),
        (b"no json", JSON, 400),
        (b'{"resourceLogs":[{}]}', JSON, 400),
        (b"<xml/>", {"content-type": "application/xml"}, 415),
        (b"", {"content-type": ""}, 415),
        (spans(), PROTOBUF | {"content-encoding": "br"}, 415),
        (spans(), PROTOBUF | {"content-encoding": "gzip"}, 400),
        (spans(), PROTOBUF | {"content-encoding": "gzip, gzip"}, 415),
        (gzip.compress(spans())[:-9], PROTOBUF | {"content-encoding": "gzip"}, 400),
        (b"{}", JSON | {"content-encoding": "zstd"}, 400),
    ],
)
async def test_what_is_no_otlp_is_refused_with_a_status_in_its_own_encoding(
    gate: Bench, http: httpx.AsyncClient, content: bytes, headers: dict[str, str], status: int
) -> None:
    reply = await http.post("/v1/traces", content=content, headers=headers)
    assert reply.status_code == status
    if headers is JSON or "json" in headers["content-type"]:
        assert reply.headers["content-type"] == "application/json"
        assert reply.json()["message"]
    else:
        assert reply.headers["content-type"] == "application/x-protobuf"
        assert Status.FromString(reply.content).message
    assert gate.log.raw == []


@pytest.mark.parametrize("limit", [1024, 1_000_000])
@pytest.mark.parametrize(("half", "means"), [("\\ud83d", "�"), ("\udcff", "�"), ("\\ud83d\\ude00", "😀")])
async def test_half_an_emoji_costs_one_character_not_the_request(limit: int, half: str, means: str) -> None:
    span = '{"traceId": "%s", "spanId": "%016x", "name": "%s"}'
    told = ", ".join(span % ("ab" * 16, n, name) for n, name in enumerate(("one" * 500, f"two {half}", "three"), 1))
    body = ('{"resourceSpans": [{"scopeSpans": [{"spans": [%s]}]}]}' % told).encode("utf-8", "surrogateescape")  # noqa: UP031
    async with bench(trace_record_bytes=limit) as gate, httpx.AsyncClient(trust_env=False, headers=KEY) as http:
        reply = await http.post(f"{gate.url}/v1/traces", content=body, headers=JSON)
        assert (reply.status_code, reply.json()) == (200, {})
        records = [
            decode(value, headers) for (_, _, value), headers in zip(gate.log.raw, gate.log.raw_headers, strict=True)
        ]
    found = [s.name for one in records for s in one.traces.resource_spans[0].scope_spans[0].spans]
    assert found == ["one" * 500, f"two {means}", "three"]


async def test_bytes_that_are_no_text_cost_one_character_in_protobuf_too(gate: Bench, http: httpx.AsyncClient) -> None:
    body = spans("one") + spans("two !") + spans("three")
    reply = await http.post("/v1/traces", content=body.replace(b"two !", b"two \xf0"), headers=PROTOBUF)
    assert reply.status_code == 200
    found = decode(gate.log.raw[0][2], gate.log.raw_headers[0]).traces.resource_spans
    assert [group.scope_spans[0].spans[0].name for group in found] == ["one", "two �", "three"]


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
async def test_the_limit_is_that_of_the_unpacked_body(encoding: str) -> None:
    async with bench(max_trace_bytes=10_000) as gate, httpx.AsyncClient(trust_env=False, headers=KEY) as http:
        bomb = ENCODERS[encoding](spans("x" * 20_000))
        assert len(bomb) < 10_000
        headers = PROTOBUF | {"content-encoding": encoding}
        assert (await http.post(f"{gate.url}/v1/traces", content=bomb, headers=headers)).status_code == 413
        fits = ENCODERS[encoding](spans("x" * 9_000))
        assert (await http.post(f"{gate.url}/v1/traces", content=fits, headers=headers)).status_code == 200
        plain = await http.post(f"{gate.url}/v1/traces", content=spans("x" * 20_000), headers=JSON)
        assert plain.status_code == 413
        assert "10000 bytes" in plain.json()["message"]


@pytest.mark.parametrize("in_json", [False, True])
async def test_a_large_request_is_cut_between_spans_and_acknowledged_whole(in_json: bool) -> None:
    async with bench(trace_record_bytes=10_000) as gate, httpx.AsyncClient(trust_env=False, headers=KEY) as http:
        ids = [{"traceId": "ab" * 16, "spanId": f"{n:016x}", "name": "x" * 100} for n in range(1000)]
        body = (
            orjson.dumps({"resourceSpans": [{"scopeSpans": [{"spans": ids}]}]}) if in_json else spans("x" * 100, 1000)
        )
        reply = await http.post(f"{gate.url}/v1/traces", content=body, headers=JSON if in_json else PROTOBUF)
        assert reply.status_code == 200
        assert len(gate.log.raw) > 5
        assert max(len(value) for _, _, value in gate.log.raw) < 11_000
        assert len({key for _, key, _ in gate.log.raw}) == 1
        if in_json:
            parts = [orjson.loads(v)["resourceSpans"][0]["scopeSpans"][0]["spans"] for _, _, v in gate.log.raw]
            assert [span for part in parts for span in part] == ids
        else:
            whole = ExportTraceServiceRequest()
            for _, _, value in gate.log.raw:
                whole.MergeFromString(value)
            found = [s.span_id for group in whole.resource_spans for scope in group.scope_spans for s in scope.spans]
            assert found == [n.to_bytes(8, "big") for n in range(1000)]
        gate.log.raw.clear()
        gate.log.failures = 1  # one part of many is not written: the request is not accepted
        again = await http.post(f"{gate.url}/v1/traces", content=body, headers=JSON if in_json else PROTOBUF)
        assert again.status_code == 503


async def test_unlogged_spans_are_not_accepted(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.log.failures = 1
    reply = await http.post("/v1/traces", content=spans(), headers=PROTOBUF)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert (await http.post("/v1/traces", content=spans(), headers=PROTOBUF)).status_code == 200


async def test_while_kafka_is_known_to_be_away_nothing_is_read(gate: Bench, http: httpx.AsyncClient) -> None:
    gate.log.up = False
    reply = await http.post("/v1/traces", content=spans(), headers=JSON)
    assert (reply.status_code, reply.headers["retry-after"], reply.json()["code"]) == (503, "1", 14)


async def test_bytes_in_memory_are_bounded_and_more_is_a_503() -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield bytes(60_000)
        started.set()
        await finish.wait()

    async with (
        bench(max_trace_bytes=100_000, max_trace_bytes_in_flight=100_000) as gate,
        httpx.AsyncClient(trust_env=False, headers=KEY | PROTOBUF, timeout=20) as http,
    ):
        url = f"{gate.url}/v1/traces"
        first = asyncio.create_task(http.post(url, content=slowly()))
        await started.wait()
        while not gate.gateway.otlp.bodies.budget.held:
            await asyncio.sleep(0.01)
        refused = await http.post(url, content=spans("x" * 50_000))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        finish.set()
        assert (await first).status_code == 400
        assert (await http.post(url, content=spans("x" * 50_000))).status_code == 200
        assert gate.gateway.otlp.bodies.budget.held == 0


async def test_more_requests_than_places_are_a_503() -> None:
    async with (
        bench(max_concurrent_traces=1) as gate,
        httpx.AsyncClient(trust_env=False, headers=KEY | PROTOBUF) as http,
    ):
        with gate.gateway.otlp.limiter.slot():
            refused = await http.post(f"{gate.url}/v1/traces", content=spans())
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


def test_the_process_does_not_load_grpc_unless_its_port_is_set() -> None:
    code = "import sys, leyden.gateway.app; sys.exit('grpc' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(p for p in sys.path if p)}, check=False
    )
    assert result.returncode == 0
