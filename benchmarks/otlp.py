"""How many spans a second the OTLP door takes until Kafka has acknowledged them, beside the OpenTelemetry Collector.

Batches of 100 spans over OTLP/HTTP in protobuf, plain and with token ids in each span. The client is a process of its
own; one Kafka takes the records of both. Each cell is the median of the rounds; in a round every target is measured in
turn. CPU is the door's own: what a core of it can carry, however busy the machine is.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from aiokafka.admin import NewTopic
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.gateway import KEY, PREFIX, WARM_S, Bench, Target, medians
from leyden.events.codec import OTLP
from leyden.kafka.admin import admin_client, end_offsets, ensure_topics, topic_partitions
from leyden.kafka.settings import KafkaSettings
from leyden.stack.kafka import KafkaBroker
from leyden.stack.ports import free_port
from leyden.stack.probes import HttpProbe, TcpProbe
from leyden.stack.redis import RedisServer

SPANS = 100
PROMPT_IDS, RESPONSE_IDS = 512, 128
VOCABULARY = 49_152
COLLECTOR_TOPIC = "otlp_spans"
COLUMNS = ("target", "batch", "KB", "spans/s", "requests/s", "p50 ms", "p99 ms", "CPU ms/request", "spans/s a core")


def batch(token_ids: bool) -> bytes:
    """100 spans of model calls, each with ten short attributes, and 512 + 128 token ids where asked."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "benchmark"
    scope = group.scope_spans.add()
    scope.scope.name = "benchmark"
    for number in range(1, SPANS + 1):
        span = scope.spans.add(
            name="chat policy", kind=3, trace_id=bytes(15) + b"\1", span_id=number.to_bytes(8, "big")
        )
        span.start_time_unix_nano = 1_700_000_000_000_000_000 + number
        span.end_time_unix_nano = span.start_time_unix_nano + 1_000_000
        for index in range(10):
            span.attributes.add(key=f"gen_ai.attribute.{index}").value.string_value = "a value of some words"
        for key, count in (("prompt", PROMPT_IDS), ("response", RESPONSE_IDS)) if token_ids else ():
            ids = span.attributes.add(key=f"{key}_token_ids").value.array_value.values
            for place in range(count):
                ids.add(int_value=(number + place) * 7919 % VOCABULARY)
    return request.SerializeToString()


def gateway(bench: Bench, kafka: KafkaSettings) -> Target:
    """Our door."""
    redis = bench.stack.enter_context(RedisServer(bench.folder / "redis"))
    port = free_port()
    process = bench.start(
        [sys.executable, "-m", "leyden.gateway"], HttpProbe(f"http://127.0.0.1:{port}/readyz"),
        KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap_servers, REDIS_URL=redis.url, LEYDEN_TOPIC_PREFIX=PREFIX,
        LEYDEN_OPS_PORT=str(free_port()), LEYDEN_DATA_DIR=str(bench.folder), LEYDEN_GATEWAY_PORT=str(port),
        LEYDEN_GATEWAY_SECRET="a secret of the benchmark", LEYDEN_GATEWAY_API_KEYS=KEY,
    )  # fmt: skip
    return Target("gateway", f"http://127.0.0.1:{port}/v1/traces", process)


def collector(bench: Bench, kafka: KafkaSettings, program: str) -> Target:
    """The Collector, with nothing between receiver and exporter, acknowledging as we do: when all replicas have it."""
    port = free_port()
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}},
        "exporters": {
            "kafka": {
                "brokers": [kafka.bootstrap_servers],
                "traces": {"topic": COLLECTOR_TOPIC},
                "producer": {"required_acks": -1, "max_message_bytes": 8_000_000},
                "sending_queue": {"enabled": False},
                "retry_on_failure": {"enabled": False},
            }
        },
        "service": {
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["kafka"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }
    path = bench.folder / "collector.json"
    path.write_text(json.dumps(config))
    process = bench.start([program, f"--config={path}"], TcpProbe(port))
    return Target("OpenTelemetry Collector", f"http://127.0.0.1:{port}/v1/traces", process)


async def make_topics(settings: KafkaSettings) -> None:
    """Ours, and the Collector's with as many partitions."""
    await ensure_topics(settings, PREFIX)
    async with admin_client(settings) as admin:
        await admin.create_topics([NewTopic(COLLECTOR_TOPIC, num_partitions=6, replication_factor=1)])


async def records(settings: KafkaSettings, target: Target) -> int:
    """How many records the target has written so far."""
    topic = PREFIX + OTLP if target.name == "gateway" else COLLECTOR_TOPIC
    return sum((await end_offsets(settings, await topic_partitions(settings, [topic]))).values())


def load(target: Target, body: Path, connections: int, seconds: float) -> dict[str, float]:
    """Have a client of its own keep the target busy."""
    command = [sys.executable, "-m", "benchmarks.http_load", target.url, str(body), "--key", KEY]
    command += ["--content-type", "application/x-protobuf"]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120)
    if done.returncode:
        raise SystemExit(f"{target.name}: {done.stdout}{done.stderr[-2000:]}")
    seen: dict[str, float] = json.loads(done.stdout)
    return seen


def measure(target: Target, body: Path, connections: int, seconds: float, settings: KafkaSettings) -> dict[str, float]:
    """One cell of one round. Every acknowledged batch must be in Kafka, or the numbers mean nothing."""
    load(target, body, connections, WARM_S)
    before, written = target.cpu_s(), asyncio.run(records(settings, target))
    seen = load(target, body, connections, seconds)
    cpu_ms = 1000 * (target.cpu_s() - before) / seen["requests"]
    if (found := asyncio.run(records(settings, target)) - written) < seen["requests"]:
        raise SystemExit(f"{target.name} acknowledged {seen['requests']} batches; {found} are in Kafka")
    return seen | {"cpu_ms": cpu_ms}


def row(name: str, what: str, size: int, cell: dict[str, float]) -> str:
    """A line of the table."""
    rate, cpu = cell["per_s"], cell["cpu_ms"]
    numbers = f"{SPANS * rate:.0f} | {rate:.0f} | {cell['p50_ms']:.2f} | {cell['p99_ms']:.2f} | {cpu:.3f}"
    return f"| {name} | {what} | {size / 1000:.0f} | {numbers} | {SPANS * 1000 / cpu:.0f} |"


def rounds(targets: list[Target], folder: Path, settings: KafkaSettings, chosen: argparse.Namespace) -> None:
    """Measure everything, and print a row for each cell when its rounds are done."""
    print(f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS), sep="\n", flush=True)
    for what, token_ids in (("plain", False), ("token ids", True)):
        body = folder / "request.pb"
        body.write_bytes(batch(token_ids))
        seen: dict[str, list[dict[str, float]]] = defaultdict(list)
        for _ in range(chosen.rounds):
            for target in targets:
                seen[target.name].append(measure(target, body, chosen.connections, chosen.seconds, settings))
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
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leyden-benchmark-")))
        bench = Bench(stack, folder)
        broker = stack.enter_context(KafkaBroker(folder / "kafka"))
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        asyncio.run(make_topics(settings))
        targets = [gateway(bench, settings)]
        if chosen.collector:
            targets.append(collector(bench, settings, chosen.collector))
        rounds(targets, folder, settings, chosen)


if __name__ == "__main__":
    main()
