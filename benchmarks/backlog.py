"""What memory the gateway takes when Kafka stands still and callers come, and when ten times as many of them come.

Each cell is a gateway of its own: some requests while all is well, then the broker is stopped and the load begins,
model calls or spans with token ids (0.4 MB a request), and goes on past the gateway's patience (`publish_timeout_s`).
What it cannot keep it refuses, with 503 or 429. In the end the broker goes on, and the gateway must take requests
again.
`python -m benchmarks.ingest --kafka` measures ingest's.
"""

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.gateway import CHAT, announce, start_engine
from benchmarks.otlp import SEND, batch
from benchmarks.servers import PATIENCE_S, Bench, Target, load, mib
from leyden.kafka.settings import KafkaSettings
from leyden.stack.kafka import KafkaBroker

TRACES = "/v1/traces"
PROMPT, RESPONSE = 512, 128
BEFORE_S = 2.0
COLUMNS = (
    "requests", "connections", "KB each", "answered 200", "refused 503", "refused 429", "MiB before", "MiB at most",
    "well again, s",
)  # fmt: skip


def bodies(folder: Path) -> dict[str, Path]:
    """A file with a request for each path."""
    message = {"role": "user", "content": "word" * PROMPT}
    chat, traces = folder / "request.json", folder / "request.pb"
    chat.write_text(json.dumps({"model": "policy", "messages": [message], "stream": False}))
    traces.write_bytes(batch(token_ids=True))
    return {CHAT: chat, TRACES: traces}


def cell(bench: Bench, broker: KafkaBroker, path: str, connections: int, seconds: float) -> str:
    """A row: a fresh gateway before, during and after."""
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    (url,), (process,) = bench.gateways(settings)
    target = Target("gateway", (url + path,), (process,))
    body, options = bodies(bench.folder)[path], SEND if path == TRACES else ()
    load(target, body, 16, BEFORE_S, *options)
    before = mib(process.pid)
    assert broker.pid
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        answers = load(target, body, connections, seconds, *options)["answers"]
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    peak, well = mib(process.pid, peak=True), well_again(target, body, options)
    process.kill()
    counts = " | ".join(str(answers.pop(status, 0)) for status in ("200", "503", "429"))
    if answers:
        raise SystemExit(f"the gateway answered {answers}")
    size = body.stat().st_size / 1000
    return f"| {path} | {connections} | {size:.0f} | {counts} | {before:.0f} | {peak:.0f} | {well:.1f} |"


def well_again(target: Target, body: Path, options: tuple[str, ...]) -> float:
    """Seconds until every answer of a short load is 200."""
    began = time.monotonic()
    while set(load(target, body, 1, 0.2, *options)["answers"]) != {"200"}:
        if time.monotonic() - began > PATIENCE_S:
            raise SystemExit("the gateway takes nothing though Kafka runs again")
    return time.monotonic() - began


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backlog", description=__doc__)
    parser.add_argument("--connections", type=int, nargs="+", default=[64, 640])
    parser.add_argument("--seconds", type=float, default=15.0, help="that the broker stands still")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        bench = Bench(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leyden-benchmark-"))))
        engine = start_engine(bench, PROMPT, RESPONSE)
        broker = stack.enter_context(KafkaBroker(bench.folder / "kafka"))
        asyncio.run(announce(KafkaSettings(bootstrap_servers=broker.bootstrap_servers), engine, bench.folder))
        print(f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS), sep="\n", flush=True)
        for path in (CHAT, TRACES):
            for connections in chosen.connections:
                print(cell(bench, broker, path, connections, chosen.seconds), flush=True)


if __name__ == "__main__":
    main()
