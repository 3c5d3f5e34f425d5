"""Servers of a benchmark: processes of their own that end with it, the load on them, and what they cost.

Others' servers are in peers.py.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leyden.kafka.admin import end_offsets, topic_partitions
from leyden.kafka.settings import KafkaSettings
from leyden.stack.ports import free_ports
from leyden.stack.probes import HttpProbe
from leyden.stack.redis import RedisServer

PREFIX = "benchmark."
KEY = "key-of-the-benchmark"
PATIENCE_S = 180.0
WARM_S = 0.5


@dataclass(frozen=True)
class Target:
    """Something that answers requests."""

    name: str
    urls: tuple[str, ...]
    """Where requests go; connections take them in turn."""
    processes: tuple[subprocess.Popen[bytes], ...] = ()
    """Whose CPU time is counted."""
    streams: bool = True
    """Whether it can."""

    def cpu_s(self) -> float:
        """User and system time of the processes and their children so far."""
        return sum(cpu_s(pid) for process in self.processes for pid in _family(process.pid))


@dataclass
class Bench:
    """Servers of one run."""

    stack: ExitStack
    folder: Path

    def start(self, command: list[str], ready: Callable[[], bool], **environment: str) -> subprocess.Popen[bytes]:
        """Start a process that ends with the run, and wait until it is ready."""
        log = self.stack.enter_context((self.folder / "servers.log").open("ab"))
        process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        deadline = time.monotonic() + PATIENCE_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[:4]} did not start: {(self.folder / 'servers.log').read_text()[-3000:]}")
            time.sleep(0.1)
        return process

    def gateways(self, kafka: KafkaSettings, number: int = 1) -> tuple[list[str], list[subprocess.Popen[bytes]]]:
        """(URLs, processes) of so many replicas, which meet in Kafka and in a Redis of their own alone."""
        redis = self.stack.enter_context(RedisServer(self.folder / f"redis-{time.monotonic_ns()}"))
        urls, processes = [], []
        for _ in range(number):
            port, ops = free_ports(2)
            urls.append(f"http://127.0.0.1:{port}")
            processes.append(
                self.start(
                    [sys.executable, "-m", "leyden.gateway"], HttpProbe(f"{urls[-1]}/readyz"),
                    KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap_servers, REDIS_URL=redis.url, LEYDEN_TOPIC_PREFIX=PREFIX,
                    LEYDEN_OPS_PORT=str(ops), LEYDEN_DATA_DIR=str(self.folder), LEYDEN_GATEWAY_PORT=str(port),
                    LEYDEN_GATEWAY_SECRET="a secret of the benchmark", LEYDEN_GATEWAY_API_KEYS=KEY,
                )
            )  # fmt: skip
        return urls, processes


def post(url: str, body: Any) -> Any:
    """The JSON answer to a JSON request."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def load(target: Target, body: Path, connections: int, seconds: float, *options: str) -> dict[str, Any]:
    """Have a client of its own keep the target busy; what it saw, whatever the answers were."""
    command = [sys.executable, "-m", "benchmarks.http_load", str(body), *target.urls, "--key", KEY]
    command += ["--connections", str(connections), "--seconds", str(seconds), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120)
    if done.returncode:
        raise SystemExit(f"{target.name}: {done.stdout}{done.stderr[-2000:]}")
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def measure(target: Target, body: Path, connections: int, seconds: float, *options: str) -> dict[str, float]:
    """One cell of one round, after a warm-up of its own. Every answer must be 200; `acknowledged` counts both's."""
    warm = load(target, body, connections, WARM_S, *options)
    before = target.cpu_s()
    seen = load(target, body, connections, seconds, *options)
    cpu_ms = 1000 * (target.cpu_s() - before) / seen["requests"]
    if set(answers := warm["answers"] | seen.pop("answers")) != {"200"}:
        raise SystemExit(f"{target.name} answered {answers}")
    return seen | {"cpu_ms": cpu_ms, "acknowledged": warm["requests"] + seen["requests"]}


def medians(cells: list[dict[str, float]]) -> dict[str, float]:
    """Each number's median over the rounds."""
    return {name: statistics.median(cell[name] for cell in cells) for name in cells[0]}


def records(settings: KafkaSettings, topic: str) -> int:
    """How many records are in a topic."""

    async def count() -> int:
        return sum((await end_offsets(settings, await topic_partitions(settings, [topic]))).values())

    return asyncio.run(count())


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mib(pid: int, peak: bool = False) -> float:
    """Resident memory of a process now, or at most so far."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]
