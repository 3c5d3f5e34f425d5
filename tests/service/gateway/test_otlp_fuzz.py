"""Whatever comes to the OTLP door is answered with no 5xx, and what it accepts stops nothing behind it."""

import asyncio
import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import cramjam
import httpx
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette

from leyden.clock import ManualClock
from leyden.gateway.adapters.engines import AiohttpEngines
from leyden.gateway.app import Gateway
from leyden.ingest.core.decode import decode
from leyden.ingest.core.limits import Limits
from leyden.ingest.dialects import DIALECTS
from leyden.ingest.handlers import IngestHandlers
from leyden.kafka import Delivered
from service.gateway import gateway_fakes as fakes
from service.gateway.gateway_kept_fake import MemoryKeptResponses
from service.gateway.gateway_rates_fake import MemoryRates
from service.gateway.gateway_store_fake import MemoryStore

VECTORS = Path(__file__).parents[2] / "golden" / "otlp"
ENCODE = {
    "": bytes,
    "gzip": lambda body: gzip.compress(body, 1),
    "deflate": zlib.compress,
    "zstd": lambda body: bytes(cramjam.zstd.compress(body)),
}
BOTH = ("application/x-protobuf", "application/json")


def requests() -> list[tuple[str, str, bytes]]:
    """Real ones: signal, content type, body."""
    found = []
    for file in sorted(VECTORS.glob("*.json")):
        signal = file.stem.rpartition("_")[2]
        headers = {"content-type": BOTH[1], "leyden-signal": signal}
        found.append((signal, BOTH[1], file.read_bytes()))
        decoded = decode(file.read_bytes(), headers)
        request = decoded.logs if signal == "logs" else decoded.traces
        found.append((signal, BOTH[0], request.SerializeToString()))
    deep: dict[str, object] = {"stringValue": "x"}
    for _ in range(120):
        deep = {"arrayValue": {"values": [deep]}}
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=bytes(16), span_id=bytes(8), name="\x00")
    ParseDict(deep, span.attributes.add(key="deep").value, max_recursion_depth=500)
    found.append(("traces", BOTH[0], request.SerializeToString()))
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add(severity_number=9, body={"double_value": float("nan")})
    found.append(("logs", BOTH[0], logs.SerializeToString()))
    return found


REQUESTS = requests()


class Doors:
    """A gateway and an ingest on fakes."""

    def __init__(self) -> None:
        self.log, self.behind = fakes.FakeLog(), fakes.FakeLog()
        knobs = fakes.settings(max_trace_bytes=200_000, trace_record_bytes=1024)
        engines = AiohttpEngines(4.0, 100, 1_000_000)
        gateway = Gateway(
            settings=knobs,
            store=MemoryStore(),
            engines=engines,
            log=self.log,
            clock=ManualClock(fakes.START),
            rates=MemoryRates(),
            kept=MemoryKeptResponses(),
        )
        transport = httpx.ASGITransport(Starlette(routes=gateway.routes()), raise_app_exceptions=True)
        key = {"authorization": f"Bearer {fakes.API_KEY}"}
        self.http = httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=key)
        self.ingest = IngestHandlers(self.behind, DIALECTS, ManualClock(fakes.START), Limits(10_000, 50_000))

    async def send(self, signal: str, content_type: str, encoding: str, body: bytes) -> int:
        """The status; what was accepted has gone through ingest."""
        headers = {"content-type": content_type, "content-encoding": encoding}
        reply = await self.http.post(f"/v1/{signal}", content=body, headers=headers)
        batch = [
            Delivered(value, topic, key, 0, place, f"{topic}/0/{place}", headers, value)
            for place, ((topic, key, value), headers) in enumerate(zip(self.log.raw, self.log.raw_headers, strict=True))
        ]
        self.log.raw.clear()
        self.log.raw_headers.clear()
        await self.ingest.on_otlp(batch)
        return reply.status_code


@pytest.fixture(scope="module")
def run() -> Iterator[tuple[asyncio.Runner, Doors]]:
    logging.disable(logging.CRITICAL)
    with asyncio.Runner() as runner:
        yield runner, Doors()
    logging.disable(logging.NOTSET)


def tries(examples: int) -> settings:
    """`LEYDEN_FUZZ=100` looks a hundred times longer."""
    examples *= int(os.environ.get("LEYDEN_FUZZ", "1"))
    return settings(max_examples=examples, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(
    signal=st.sampled_from(["traces", "logs", "metrics"]),
    content_type=st.sampled_from([*BOTH, "text/plain"]),
    said=st.sampled_from([*ENCODE, "br"]),
    done=st.sampled_from(list(ENCODE)),
    body=st.binary(max_size=300) | st.text(max_size=100).map(str.encode),
)
@tries(40)
def test_any_bytes(
    run: tuple[asyncio.Runner, Doors], signal: str, content_type: str, said: str, done: str, body: bytes
) -> None:
    runner, doors = run
    assert runner.run(doors.send(signal, content_type, said, ENCODE[done](body))) in (200, 400, 413, 415)


@given(
    request=st.sampled_from(REQUESTS),
    encoding=st.sampled_from(list(ENCODE)),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3), st.integers(0, 3)), max_size=6),
    cut=st.none() | st.integers(0, 10_000),
    times=st.sampled_from([1, 1, 5]),
    packed_damage=st.none() | st.tuples(st.integers(0, 10_000), st.integers(0, 255)),
)
@tries(50)
def test_damaged_requests(
    run: tuple[asyncio.Runner, Doors],
    request: tuple[str, str, bytes],
    encoding: str,
    edits: list[tuple[int, bytes, int]],
    cut: int | None,
    times: int,
    packed_damage: tuple[int, int] | None,
) -> None:
    """Bytes replaced, put in and taken out, in the request and in what packs it; ends cut off; repeated."""
    runner, doors = run
    signal, content_type, body = request
    data = bytearray(body * (times if content_type == BOTH[0] else 1))
    for at, new, gone in edits:
        at %= len(data) + 1
        data[at : at + gone] = new
    if cut is not None:
        del data[cut % (len(data) + 1) :]
    packed = bytearray(ENCODE[encoding](bytes(data)))
    if packed_damage and packed:
        packed[packed_damage[0] % len(packed)] = packed_damage[1]
    assert runner.run(doors.send(signal, content_type, encoding, bytes(packed))) in (200, 400, 413)


FIELDS = """
traceId spanId parentSpanId name kind attributes key value stringValue intValue doubleValue boolValue bytesValue
arrayValue kvlistValue values events links status code timeUnixNano startTimeUnixNano endTimeUnixNano severityNumber
body eventName flags droppedAttributesCount
"""
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON_VALUES = st.recursive(
    SCALARS | st.sampled_from(["NaN", "zz", "0a", "ab" * 16, "cd" * 8, "AAAAAAAAAAA="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS.split()), inner, max_size=6),
    max_leaves=12,
)


@given(items=st.lists(JSON_VALUES, max_size=3), resource=JSON_VALUES, scope=JSON_VALUES, logs=st.booleans())
@tries(50)
def test_json_of_the_right_shape_and_the_wrong_types(
    run: tuple[asyncio.Runner, Doors], items: list[object], resource: object, scope: object, logs: bool
) -> None:
    runner, doors = run
    names = ("resourceLogs", "scopeLogs", "logRecords") if logs else ("resourceSpans", "scopeSpans", "spans")
    body = {names[0]: [{"resource": resource, names[1]: [{"scope": scope, names[2]: items}]}]}
    sent = json.dumps(body).encode("utf-8", "surrogatepass")
    assert runner.run(doors.send("logs" if logs else "traces", BOTH[1], "", sent)) in (200, 400)
