"""How many spans a second one core of ingest decodes and normalises; with `--kafka`, the time and memory of a backlog.

The spans are those that real instrumentations were recorded with (tests/golden/spans), in requests of 100, and a plain
mix in the GenAI conventions. `relative` is the time of a span in times of the plain mix, which neighbours cannot spoil;
so is the calibration: how long this machine's core takes, at that moment, to add the numbers below 1000.
"""

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from benchmarks.otlp import batch
from benchmarks.servers import PREFIX, Bench, cpu_s, mib, records
from leyden.events.codec import OTLP, SPANS
from leyden.events.otlp import CONTENT_TYPE_HEADER, JSON
from leyden.ingest.core.decode import decode
from leyden.ingest.core.normalise import normalise_traces
from leyden.ingest.dialects import DIALECTS
from leyden.kafka.admin import ensure_topics
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.settings import KafkaSettings
from leyden.stack.kafka import KafkaBroker
from leyden.stack.ports import free_port
from leyden.stack.probes import HttpProbe

RECORDED = Path(__file__).parents[1] / "tests/golden/spans"
IN_A_REQUEST = 100
AT_A_TIME = 50
SETTLED_S = 5.0
"""Until the group's rebalancing is over."""
COLUMNS = (
    "spans", "requests", "spans in all", "spans/s", "us of CPU", "spans/s of a core", "MiB before", "MiB at most",
)  # fmt: skip
_CHAT = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "policy",
    "gen_ai.response.model": "policy", "gen_ai.response.id": "chatcmpl-1", "gen_ai.usage.input_tokens": 120,
    "gen_ai.usage.output_tokens": 33, "gen_ai.request.temperature": 1.0, "server.address": "localhost",
}  # fmt: skip
_TOOL = {
    "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "population", "gen_ai.tool.call.id": "call_1",
    "gen_ai.tool.call.arguments": '{"city": "Leiden"}', "gen_ai.tool.call.result": "127000",
}  # fmt: skip
_STEP = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "geographer"}


@dataclass(frozen=True)
class Load:
    """Spans of one kind, as requests."""

    name: str
    requests: list[bytes]
    spans: int


def plain() -> Load:
    """Half of them model calls without what was said, a quarter tools, a quarter steps of an agent."""
    spans = [_span(number, (_CHAT, _TOOL, _CHAT, _STEP)[number % 4]) for number in range(IN_A_REQUEST)]
    return Load("plain", [_request(spans)], len(spans))


def recorded() -> list[Load]:
    """One for each recording, its spans repeated until they fill a request."""
    found = []
    for path in sorted(RECORDED.glob("*.json")):
        groups: list[ResourceSpans] = []
        for one in json.loads(path.read_text())["traces"]:
            groups += decode(orjson.dumps(one), {CONTENT_TYPE_HEADER: JSON}).traces.resource_spans
        spans = [span for group in groups for scope in group.scope_spans for span in scope.spans]
        whole = (spans * IN_A_REQUEST)[:IN_A_REQUEST]
        found.append(Load(path.stem, [_request(whole)], len(whole)))
    return found


def _span(number: int, attributes: Mapping[str, object]) -> Span:
    values = {str: "string_value", int: "int_value", float: "double_value"}
    held = [KeyValue(key=k, value=AnyValue(**{values[type(v)]: v})) for k, v in attributes.items()]  # type: ignore[arg-type]
    ids = {"trace_id": b"\x1e\x7d\xe0" + bytes(13), "span_id": (number + 1).to_bytes(8, "big")}
    times = {"start_time_unix_nano": 1_700_000_000_000_000_000, "end_time_unix_nano": 1_700_000_001_500_000_000}
    return Span(**ids, name="a span", attributes=held, **times)  # type: ignore[arg-type]


def _request(spans: list[Span]) -> bytes:
    group = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
    return ExportTraceServiceRequest(resource_spans=[group]).SerializeToString()


def seconds_per_span(load: Load, at_least_s: float) -> float:
    """CPU time of one span: bytes of a request in, bytes of events out."""
    done, began = 0, time.process_time()
    while (took := time.process_time() - began) < at_least_s:
        for value in load.requests:
            for one in normalise_traces(decode(value, {}).traces, DIALECTS):
                done += one is not None
    return took / done


def calibration_us() -> float:
    """How fast the core is just now."""
    return min(timeit.repeat(lambda: sum(range(1000)), number=200, repeat=5)) / 200 * 1e6


def in_memory(loads: list[Load], rounds: int, at_least_s: float) -> None:
    """The table, the median of `rounds`; in a round every load is measured in turn."""
    took: dict[str, list[float]] = {load.name: [] for load in loads}
    for _ in range(rounds):
        for load in loads:
            took[load.name].append(seconds_per_span(load, at_least_s))
    base = statistics.median(took[loads[0].name])
    print(
        "| spans | bytes each | us of CPU | spans/s of a core | fastest round | relative |\n|---|---|---|---|---|---|"
    )
    for load in loads:
        size = sum(map(len, load.requests)) // load.spans
        middle, least = statistics.median(took[load.name]), min(took[load.name])
        rates = f"{1 / middle:,.0f} | {1 / least:,.0f}"
        print(f"| {load.name} | {size} | {middle * 1e6:.0f} | {rates} | {middle / base:.1f} |")


async def fill(settings: KafkaSettings, prefix: str, load: Load, requests: int, folder: Path) -> None:
    """Put `requests` requests into the topic, each with trace ids of its own."""
    publisher = KafkaPublisher(settings, prefix, ClaimStore(f"file://{folder}/claims"))
    await publisher.start()
    request = ExportTraceServiceRequest.FromString(load.requests[0])
    for first in range(0, requests, AT_A_TIME):
        sends = []
        for number in range(first, min(first + AT_A_TIME, requests)):
            for span in request.resource_spans[0].scope_spans[0].spans:
                span.trace_id = (number + 1).to_bytes(16, "big")
            sends.append(publisher.publish_raw(OTLP, f"{number}", request.SerializeToString()))
        await asyncio.gather(*sends)
    await publisher.stop()


def through_kafka(bench: Bench, settings: KafkaSettings, load: Load, requests: int) -> str:
    """A row: the ordinary service, held still while its topic is filled, then let go."""
    prefix = f"{PREFIX}{load.name.replace(' ', '-')}-{requests}."
    asyncio.run(ensure_topics(settings, prefix))
    port = free_port()
    process = bench.start(
        [sys.executable, "-m", "leyden.ingest"], HttpProbe(f"http://127.0.0.1:{port}/readyz"),
        KAFKA_BOOTSTRAP_SERVERS=settings.bootstrap_servers, LEYDEN_TOPIC_PREFIX=prefix,
        KAFKA_SESSION_TIMEOUT_MS="1800000", LEYDEN_OPS_PORT=str(port), LEYDEN_DATA_DIR=str(bench.folder),
    )  # fmt: skip
    time.sleep(SETTLED_S)
    process.send_signal(signal.SIGSTOP)
    asyncio.run(fill(settings, prefix, load, requests, bench.folder))
    spans, idle, cpu = requests * load.spans, mib(process.pid), cpu_s(process.pid)
    began = time.monotonic()
    process.send_signal(signal.SIGCONT)
    while records(settings, prefix + SPANS) < spans:
        time.sleep(0.2)
        if process.poll() is not None:
            raise SystemExit("ingest ended before its work was done")
    seconds, cpu = time.monotonic() - began, cpu_s(process.pid) - cpu
    peak = mib(process.pid, peak=True)
    process.kill()
    rates = f"{spans / seconds:,.0f} | {cpu / spans * 1e6:.0f} | {spans / cpu:,.0f}"
    return f"| {load.name} | {requests} | {spans} | {rates} | {idle:.0f} | {peak:.0f} |"


def backlogs(loads: list[Load], requests: list[int]) -> None:
    """Print a row for each load and size of backlog."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leyden-benchmark-")))
        kafka = stack.enter_context(KafkaBroker(folder / "kafka"))
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
        print(f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS), sep="\n", flush=True)
        for load in loads:
            for number in requests:
                print(through_kafka(Bench(stack, folder), settings, load, number), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of CPU, for each cell of a round")
    parser.add_argument("--kafka", action="store_true", help="from topic to topic, and the memory that takes")
    parser.add_argument("--requests", type=int, nargs="+", default=[300], help="of 100 spans: backlogs in Kafka")
    chosen = parser.parse_args()
    print(f"calibration: {calibration_us():.1f} us")
    if chosen.kafka:
        backlogs([plain(), Load("token ids", [batch(token_ids=True)], IN_A_REQUEST)], chosen.requests)
    else:
        in_memory([plain(), *recorded()], chosen.rounds, chosen.seconds)


if __name__ == "__main__":
    main()
