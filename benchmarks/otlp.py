"""How many spans a second the OTLP door takes until Kafka has acknowledged them, beside the OpenTelemetry Collector.

Batches of 100 spans over OTLP/HTTP in protobuf, plain and with token ids in each span; no span comes twice. The client
is a process of its own; one Kafka takes the records of both. Agent Lightning's store keeps them in its memory. Each
cell is the median of the rounds; in a round every target is measured in turn. CPU is the door's own: what a core of it
can carry, however busy the machine is.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import NewTopic
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks import peers
from benchmarks.servers import PREFIX, Bench, Target, measure, medians, records
from leyden.events.codec import OTLP
from leyden.kafka.admin import admin_client, ensure_topics
from leyden.kafka.settings import KafkaSettings
from leyden.stack.kafka import KafkaBroker

SPANS = 100
PROMPT_IDS, RESPONSE_IDS = 512, 128
VOCABULARY = 49_152
STAMP = "stamp!"
"""In every span's id: no span comes twice, and what looks for that finds none."""
SEND = ("--content-type", "application/x-protobuf", "--stamp", STAMP)
COLUMNS = ("target", "batch", "KB", "spans/s", "requests/s", "p50 ms", "p99 ms", "CPU ms/request", "spans/s a core")


@dataclass(frozen=True)
class Door:
    """What takes spans, and how many batches it has kept so far."""

    target: Target
    kept: Callable[[], int]


def batch(token_ids: bool, resource: dict[str, str] | None = None) -> bytes:
    """100 spans of model calls, each with ten short attributes, and 512 + 128 token ids where asked."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for name, text in {"service.name": "benchmark", **(resource or {})}.items():
        group.resource.attributes.add(key=name).value.string_value = text
    scope = group.scope_spans.add()
    scope.scope.name = "benchmark"
    for number in range(1, SPANS + 1):
        span_id = STAMP.encode() + number.to_bytes(2, "big")
        span = scope.spans.add(name="chat policy", kind=3, trace_id=bytes(15) + b"\1", span_id=span_id)
        span.start_time_unix_nano = 1_700_000_000_000_000_000 + number
        span.end_time_unix_nano = span.start_time_unix_nano + 1_000_000
        for index in range(10):
            span.attributes.add(key=f"gen_ai.attribute.{index}").value.string_value = "a value of some words"
        for key, count in (("prompt", PROMPT_IDS), ("response", RESPONSE_IDS)) if token_ids else ():
            ids = span.attributes.add(key=f"{key}_token_ids").value.array_value.values
            for place in range(count):
                ids.add(int_value=(number + place) * 7919 % VOCABULARY)
    return request.SerializeToString()


def doors(bench: Bench, kafka: KafkaSettings, chosen: argparse.Namespace) -> tuple[list[Door], dict[str, str]]:
    """Ours, and the peers' that were asked for; what the spans' resource must say for them."""
    urls, processes = bench.gateways(kafka)
    ours = Target("gateway", (f"{urls[0]}/v1/traces",), tuple(processes))
    found = [Door(ours, lambda: records(kafka, PREFIX + OTLP))]
    told: dict[str, str] = {}
    if chosen.collector:
        theirs = peers.collector(bench, chosen.collector, kafka)
        found.append(Door(theirs, lambda: records(kafka, peers.COLLECTOR_TOPIC)))
    if chosen.agent_lightning:
        store, told, statistics = peers.lightning_store(bench, chosen.agent_lightning)
        found.append(Door(store, lambda: spans_held(statistics) // SPANS))
    return found, told


def spans_held(url: str) -> int:
    """What Agent Lightning's store says it has."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return int(json.load(answer)["total_spans"])


async def make_topics(settings: KafkaSettings) -> None:
    """Ours, and the Collector's with as many partitions."""
    await ensure_topics(settings, PREFIX)
    async with admin_client(settings) as admin:
        await admin.create_topics([NewTopic(peers.COLLECTOR_TOPIC, num_partitions=6, replication_factor=1)])


def measured(door: Door, body: Path, connections: int, seconds: float) -> dict[str, float]:
    """One cell of one round. Every acknowledged batch must have been kept, or the numbers mean nothing."""
    before = door.kept()
    seen = measure(door.target, body, connections, seconds, *SEND)
    if (found := door.kept() - before) < seen["acknowledged"]:
        raise SystemExit(f"{door.target.name} acknowledged {seen['acknowledged']} batches and kept {found}")
    return seen


def row(name: str, what: str, size: int, cell: dict[str, float]) -> str:
    """A line of the table."""
    rate, cpu = cell["per_s"], cell["cpu_ms"]
    numbers = f"{SPANS * rate:.0f} | {rate:.0f} | {cell['p50_ms']:.2f} | {cell['p99_ms']:.2f} | {cpu:.3f}"
    return f"| {name} | {what} | {size / 1000:.0f} | {numbers} | {SPANS * 1000 / cpu:.0f} |"


def rounds(bench: Bench, found: list[Door], told: dict[str, str], chosen: argparse.Namespace) -> None:
    """Measure everything, and print a row for each cell when its rounds are done."""
    print(f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS), sep="\n", flush=True)
    for what, token_ids in (("plain", False), ("token ids", True)):
        body = bench.folder / "request.pb"
        body.write_bytes(batch(token_ids, told))
        seen: dict[str, list[dict[str, float]]] = defaultdict(list)
        for _ in range(chosen.rounds):
            for door in found:
                seen[door.target.name].append(measured(door, body, chosen.connections, chosen.seconds))
        for name, cells in seen.items():
            spread = [SPANS * cell["per_s"] for cell in cells]
            print(row(name, what, body.stat().st_size, medians(cells)), flush=True)
            print(f"{name}, {what}: {min(spread):.0f} to {max(spread):.0f} spans/s", file=sys.stderr)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.otlp", description=__doc__)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--collector", metavar="PROGRAM", help="a Collector with otlpreceiver and kafkaexporter")
    parser.add_argument("--agent-lightning", metavar="PROGRAM", help="Agent Lightning 0.3's agl: its store, in memory")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leyden-benchmark-")))
        bench = Bench(stack, folder)
        broker = stack.enter_context(KafkaBroker(folder / "kafka"))
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        asyncio.run(make_topics(settings))
        found, told = doors(bench, settings, chosen)
        rounds(bench, found, told, chosen)


if __name__ == "__main__":
    main()
