"""What the gateway adds to a model call: in front of an engine that answers at once, on real Kafka and Redis.

Each cell is the median of the rounds; in a round every target is measured in turn, so that a slow minute of the machine
meets them all. The client and the engine are processes of their own. CPU is the proxy's own, of all its processes.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leyden.events import PolicyServed
from leyden.events.codec import MODELS
from leyden.kafka import Outgoing
from leyden.kafka.admin import ensure_topics
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.settings import KafkaSettings
from leyden.service import make_broker
from leyden.stack.kafka import KafkaBroker
from leyden.stack.ports import free_port
from leyden.stack.probes import HttpProbe, TcpProbe
from leyden.stack.redis import RedisServer

PREFIX = "benchmark."
KEY = "key-of-the-benchmark"
PATIENCE_S = 180.0
WARM_S = 0.5
COLUMNS = (
    "target", "stream", "connections", "requests/s", "p50 ms", "p99 ms", "added p50", "added p99", "first byte p50",
    "CPU ms/request",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """Something that answers chat calls."""

    name: str
    url: str
    """With `/v1`."""
    process: subprocess.Popen[bytes] | None = None
    """Whose CPU time is counted."""

    def cpu_s(self) -> float:
        """User and system time of the process and its children so far."""
        return sum(map(_cpu_s, _family(self.process.pid))) if self.process else 0.0


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

    def upstream(self, prompt: int, response: int) -> Target:
        """The engine."""
        port = free_port()
        sizes = ["--prompt-tokens", str(prompt), "--response-tokens", str(response)]
        self.start([sys.executable, "-m", "benchmarks.fixed_upstream", str(port), *sizes], TcpProbe(port))
        return Target("upstream", f"http://127.0.0.1:{port}/v1")

    def gateway(self, engine: Target) -> list[Target]:
        """The gateway, called outside of a rollout and in one."""
        kafka = self.stack.enter_context(KafkaBroker(self.folder / "kafka"))
        redis = self.stack.enter_context(RedisServer(self.folder / "redis"))
        asyncio.run(announce(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers), engine, self.folder))
        port, ops = free_port(), free_port()
        process = self.start(
            [sys.executable, "-m", "leyden.gateway"], HttpProbe(f"http://127.0.0.1:{port}/readyz"),
            KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap_servers, REDIS_URL=redis.url, LEYDEN_TOPIC_PREFIX=PREFIX,
            LEYDEN_OPS_PORT=str(ops), LEYDEN_DATA_DIR=str(self.folder), LEYDEN_GATEWAY_PORT=str(port),
            LEYDEN_GATEWAY_SECRET="a secret of the benchmark", LEYDEN_GATEWAY_API_KEYS=KEY,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        begun = post(f"{url}/leyden/v1/rollouts", {"task": {"timeout_s": 86400}})
        in_rollout = Target("gateway, in a rollout", begun["base_url"], process)
        return [Target("gateway", f"{url}/v1", process), in_rollout]

    def litellm(self, program: str, engine: Target) -> Target:
        """LiteLLM's proxy, with its own command line and no database."""
        served = {"model": "openai/policy", "api_base": engine.url, "api_key": KEY}
        config = {
            "model_list": [{"model_name": "policy", "litellm_params": served}],
            "general_settings": {"master_key": KEY},
        }
        path = self.folder / "litellm.json"
        path.write_text(json.dumps(config))
        port = free_port()
        alive = HttpProbe(f"http://127.0.0.1:{port}/health/liveliness")
        command = [program, "--config", str(path), "--port", str(port), "--host", "127.0.0.1"]
        # Its price list comes from the network otherwise, and its start waits for that.
        process = self.start(command, alive, LITELLM_LOCAL_MODEL_COST_MAP="True")
        return Target("LiteLLM", f"http://127.0.0.1:{port}/v1", process)


async def announce(settings: KafkaSettings, engine: Target, folder: Path) -> None:
    """Make the topics, and tell of the engine as the policy service would."""
    await ensure_topics(settings, PREFIX)
    broker = make_broker("benchmark", settings)
    await broker.connect()
    served = PolicyServed(
        event_id="benchmark", event_time=datetime.now(UTC), producer="policy", policy="policy", version=1,
        replica="r0", endpoint=engine.url.removesuffix("/v1"), model="served", engine="vllm",
    )  # fmt: skip
    publisher = KafkaPublisher(broker, PREFIX, ClaimStore(f"file://{folder}/claims"), settings.max_request_size)
    await publisher.publish_all([Outgoing(MODELS, "policy/r0", served)])
    await broker.stop()


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """A JSON request to the gateway."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def load(target: Target, body: Path, connections: int, seconds: float) -> dict[str, float]:
    """Have a client of its own keep the target busy."""
    command = [sys.executable, "-m", "benchmarks.http_load", f"{target.url}/chat/completions", str(body)]
    command += ["--key", KEY, "--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120)
    if done.returncode:
        raise SystemExit(f"{target.name}: {done.stdout}{done.stderr[-2000:]}")
    seen: dict[str, float] = json.loads(done.stdout)
    return seen


def measure(target: Target, body: Path, connections: int, seconds: float) -> dict[str, float]:
    """One cell of one round, after a warm-up of its own."""
    load(target, body, connections, WARM_S)
    before = target.cpu_s()
    seen = load(target, body, connections, seconds)
    return seen | {"cpu_ms": 1000 * (target.cpu_s() - before) / seen["requests"]}


def rounds(targets: list[Target], folder: Path, chosen: argparse.Namespace) -> None:
    """Measure everything, and print a row for each cell when its rounds are done."""
    print(f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS), sep="\n", flush=True)
    for streams in (False, True):
        body = folder / "request.json"
        # About four characters a token, as text has.
        message = {"role": "user", "content": "word" * chosen.prompt_tokens}
        asked = {"model": "policy", "messages": [message], "stream": streams}
        body.write_text(json.dumps(asked, separators=(",", ":")))
        for connections in chosen.connections:
            seen: dict[str, list[dict[str, float]]] = defaultdict(list)
            for _ in range(chosen.rounds):
                for target in targets:
                    seen[target.name].append(measure(target, body, connections, chosen.seconds))
            bare = medians(seen[targets[0].name])
            for name, cells in seen.items():
                print(row(name, streams, connections, medians(cells), bare), flush=True)


def medians(cells: list[dict[str, float]]) -> dict[str, float]:
    """Each number's median over the rounds."""
    return {name: statistics.median(cell[name] for cell in cells) for name in cells[0]}


def row(name: str, streams: bool, connections: int, cell: dict[str, float], bare: dict[str, float]) -> str:
    """A line of the table."""
    added = [cell[p] - bare[p] for p in ("p50_ms", "p99_ms")]
    numbers = [
        f"{cell['per_s']:.0f}",
        *(f"{v:.2f}" for v in (cell["p50_ms"], cell["p99_ms"], *added, cell["first_p50_ms"])),
    ]
    return f"| {name} | {'yes' if streams else 'no'} | {connections} | {' | '.join(numbers)} | {cell['cpu_ms']:.3f} |"


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--response-tokens", type=int, default=16)
    parser.add_argument("--litellm", metavar="PROGRAM", help="LiteLLM's command, from an environment of its own")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leyden-benchmark-")))
        bench = Bench(stack, folder)
        engine = bench.upstream(chosen.prompt_tokens, chosen.response_tokens)
        targets = [engine, *bench.gateway(engine)]
        if chosen.litellm:
            targets.append(bench.litellm(chosen.litellm, engine))
        rounds(targets, folder, chosen)


if __name__ == "__main__":
    main()
