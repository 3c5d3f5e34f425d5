"""What the client library costs an agent, with a gateway that answers, is gone, never answers, or goes in between.

Each is measured in a process of its own; the stand-in for the gateway, which keeps nothing, runs in another.
"""

import argparse
import json
import logging
import multiprocessing
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

from leyden.ids import AttemptRef, new_rollout_id

STATES = ("none", "otel", "up", "refused", "hanging", "dies")
"""`otel` is OpenTelemetry's own SDK and batch processor alone, on the same spans and stand-in."""
SPANS = 20
"""Of each rollout, beside its own."""


@dataclass(frozen=True)
class Measured:
    """Medians of one state; times are what the agent waits, CPU is its whole process's."""

    state: str
    span_us: float
    """An operation span, opened and closed."""
    span_cpu_us: float
    """The same, with its share of encoding and sending."""
    first_rollout_ms: float
    rollout_ms: float
    """A rollout of no work: begun and ended."""
    rollout_p99_ms: float
    rollout_max_ms: float
    exit_s: float
    """What the end of the process waits."""
    lost: int
    """Spans that were dropped or not delivered."""


class Gateway(BaseHTTPRequestHandler):
    """Says yes to everything."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Read it all, answer at once."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        kind, answer = "application/json", b"{}"
        if self.path.endswith("/traces"):
            kind, answer = "application/x-protobuf", b""
        elif self.path.endswith("/rollouts"):
            answer = json.dumps(begun()).encode()
        elif self.path.endswith("/heartbeat"):
            answer = b'{"lease_s": 30}'
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Not here."""


def begun() -> dict[str, Any]:
    """A rollout, as the gateway gives it."""
    ref = AttemptRef(new_rollout_id(), 0)
    return {
        "rollout_id": ref.rollout_id, "attempt": 0, "trace_id": ref.trace_id,
        "traceparent": f"00-{ref.trace_id}-00000000000000ff-01", "base_url": "http://gateway/v1", "api_key": "key",
        "lease_s": 600.0,
    }  # fmt: skip


def serve(told: Connection) -> None:
    """The stand-in's process: says its port, and serves until it is ended."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    server.daemon_threads = True
    told.send(server.server_port)
    server.serve_forever()


def agent(spans: int) -> float:
    """Works for nothing: seconds for all spans."""
    import leyden

    began = time.perf_counter()
    for number in range(spans):
        with leyden.operation("step", number=number) as step:
            step.result = "done"
    return time.perf_counter() - began


def bare(spans: int) -> float:
    """The same without the library."""
    began = time.perf_counter()
    for number in range(spans):
        str(number)
    return time.perf_counter() - began


def plain(url: str) -> Callable[[int], float]:
    """The same spans by OpenTelemetry's SDK, with its batch processor and exporter."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces")))
    tracer = provider.get_tracer("benchmark")

    def work(spans: int) -> float:
        began = time.perf_counter()
        with tracer.start_as_current_span("agent"):
            for number in range(spans):
                with tracer.start_as_current_span("step", attributes={"name": "step", "number": number}) as span:
                    span.set_attribute("result", "done")
        return time.perf_counter() - began

    return work


def measure(state: str, url: str, rollouts: int, die: Callable[[], None]) -> Measured:
    """In this process, which must be a fresh one."""
    import leyden
    from leyden.client.session import close

    logging.getLogger("leyden.client").setLevel(logging.CRITICAL)
    unled = {"none": bare, "otel": plain(url)}.get(state)
    if unled is None:
        leyden.init(url, "key")
    waits, spans = [], []
    cpu = 0.0
    for number in range(rollouts):
        if state == "dies" and number == rollouts // 2:
            die()
        cpu_began, began = time.process_time(), time.perf_counter()
        if unled is not None:
            worked = unled(SPANS)
        else:
            with leyden.Rollout("agent"):
                worked = agent(SPANS)
        waits.append(time.perf_counter() - began - worked)
        spans.append(worked / SPANS)
        cpu += time.process_time() - cpu_began
    stats = leyden.stats()
    began = time.perf_counter()
    close()
    milliseconds = [wait * 1e3 for wait in waits]
    return Measured(
        state=state,
        span_us=round(statistics.median(spans) * 1e6, 1),
        span_cpu_us=round(cpu / rollouts / (SPANS + 1) * 1e6, 1),
        first_rollout_ms=round(milliseconds[0], 2),
        rollout_ms=round(statistics.median(milliseconds), 2),
        rollout_p99_ms=round(percentile(milliseconds, 0.99), 2),
        rollout_max_ms=round(max(milliseconds), 2),
        exit_s=round(time.perf_counter() - began, 2),
        lost=stats.dropped + stats.failed + stats.queued,
    )


def percentile(values: list[float], share: float) -> float:
    """Of so many values the one that `share` do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure_in_a_process(state: str, rollouts: int) -> Measured:
    """One state, from its stand-in's start to its end."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    stand_in = spawn.Process(target=serve, args=(theirs,), daemon=True)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        if state == "hanging":
            deaf.listen(128)
        port = deaf.getsockname()[1]
        if state in ("otel", "up", "dies"):
            stand_in.start()
            port = ours.recv()
        told, tell = spawn.Pipe()
        child = spawn.Process(target=_child, args=(state, f"http://127.0.0.1:{port}", rollouts, tell))
        child.start()
        if state == "dies":
            told.recv()
            stand_in.kill()
            stand_in.join()
            told.send("gone")
        measured = told.recv()
        child.join()
        if stand_in.pid is not None:
            stand_in.kill()
            stand_in.join()
    return Measured(**measured)


def _child(state: str, url: str, rollouts: int, tell: Connection) -> None:
    def die() -> None:
        tell.send("die")
        tell.recv()

    tell.send(asdict(measure(state, url, rollouts, die)))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=200, help="of 20 spans each")
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES))
    options = parser.parse_args()
    names = [field.name for field in fields(Measured)]
    sys.stdout.write(f"| {' | '.join(names)} |\n|{'---|' * len(names)}\n")
    for state in options.states:
        row = asdict(measure_in_a_process(state, options.rollouts))
        sys.stdout.write(f"| {' | '.join(str(row[name]) for name in names)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
