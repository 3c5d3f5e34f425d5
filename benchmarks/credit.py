"""How fast credit turns recorded topics into transitions, and what memory it takes, on real Kafka and Redis.

Replicas of the ordinary service, each on a core of its own, are held still while the topics are filled, then let go.
Kafka and Redis are on the same machine and take their share of it, so CPU time per rollout is printed beside the rate.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.servers import PREFIX, cpu_s, mib
from benchmarks.workload import Shape, rollout_events
from leyden.events.codec import TRANSITIONS
from leyden.kafka.admin import end_offsets, ensure_topics, topic_partitions
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.settings import KafkaSettings
from leyden.stack.kafka import KafkaBroker
from leyden.stack.ports import free_ports
from leyden.stack.probes import HttpProbe
from leyden.stack.redis import RedisServer

ROLLOUTS_AT_A_TIME = 100


@dataclass(frozen=True)
class Measured:
    """One run."""

    rollouts: int
    """A multiple of the group size."""
    replicas: int
    seconds: float
    """From the moment they were let go to the last record published."""
    rollouts_per_s: float
    cpu_ms_per_rollout: float
    """User and system time of the replicas."""
    peak_mib: float
    """The largest resident set of a replica."""
    mib_after: dict[int, float]
    """The largest so far after 1,000, 10,000, … rollouts."""
    redis_bytes_per_rollout: float
    """What Redis holds at the end: the marks of what is closed, which expire (`LEYDEN_CREDIT_CLOSED_TTL_S`)."""


@dataclass
class _Replica:
    process: subprocess.Popen[bytes]
    cpu_before_s: float = 0.0

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def mib(self) -> float:
        return mib(self.process.pid)


async def fill(settings: KafkaSettings, rollouts: int, shape: Shape, folder: Path) -> None:
    """Publish what was recorded of `rollouts` rollouts."""
    publisher = KafkaPublisher(settings, PREFIX, ClaimStore(f"file://{folder}/claims"))
    await publisher.start()
    for first in range(0, rollouts, ROLLOUTS_AT_A_TIME):
        numbers = range(first, min(first + ROLLOUTS_AT_A_TIME, rollouts))
        await publisher.publish_all([outgoing for number in numbers for outgoing in rollout_events(number, shape)])
        if sys.stderr.isatty():
            print(f"\rfilled {numbers.stop} of {rollouts}", end="", file=sys.stderr)
    await publisher.stop()


async def work_off(
    settings: KafkaSettings, redis: RedisServer, replicas: list[_Replica], rollouts: int, expected: int
) -> Measured:
    """Let the replicas go, and wait until `expected` records are in the transitions topic."""
    empty = await used_memory(redis)
    partitions = await topic_partitions(settings, [PREFIX + TRANSITIONS])
    done, peak, began = 0, 0.0, time.monotonic()
    after: dict[int, float] = {}
    for replica in replicas:
        replica.cpu_before_s = replica.cpu_s()
        replica.process.send_signal(signal.SIGCONT)
    while done < expected:
        await asyncio.sleep(0.2)
        if any(replica.process.poll() is not None for replica in replicas):
            raise SystemExit("a replica of credit ended before its work was done")
        done = sum((await end_offsets(settings, partitions)).values())
        peak = max(peak, *(replica.mib() for replica in replicas))
        for mark in (10**power for power in range(3, 8)):
            if mark <= done * rollouts // expected and mark not in after:
                after[mark] = peak
    seconds = time.monotonic() - began
    cpu = sum(replica.cpu_s() - replica.cpu_before_s for replica in replicas)
    held = (await used_memory(redis) - empty) / rollouts
    return Measured(rollouts, len(replicas), seconds, rollouts / seconds, 1000 * cpu / rollouts, peak, after, held)


async def used_memory(server: RedisServer) -> int:
    """Bytes that Redis holds."""
    async with Redis.from_url(server.url) as redis:
        return int((await redis.info("memory"))["used_memory"])


def start_replicas(number: int, kafka: str, redis: str, folder: Path) -> Iterator[_Replica]:
    """Replicas of the service, each bound to a core of its own while there are enough."""
    cores = sorted(os.sched_getaffinity(0))
    run_file = folder / "run.yaml"
    run_file.write_text("credit: {}\n")
    for index, port in enumerate(free_ports(number)):
        env = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": kafka, "REDIS_URL": redis, "LEYDEN_TOPIC_PREFIX": PREFIX,
            # They do not say a word to the group's coordinator while they are held.
            "KAFKA_SESSION_TIMEOUT_MS": "1800000", "LEYDEN_OPS_PORT": str(port),
            "LEYDEN_RUN_FILE": str(run_file), "LEYDEN_DATA_DIR": str(folder),
        }  # fmt: skip
        process = subprocess.Popen([sys.executable, "-m", "leyden.credit"], env=env, stdout=subprocess.DEVNULL)
        os.sched_setaffinity(process.pid, {cores[-1 - index % len(cores)]})
        probe = HttpProbe(f"http://127.0.0.1:{port}/readyz")
        while not probe():
            time.sleep(0.1)
        yield _Replica(process)


def measure(rollouts: int, replicas: int, shape: Shape) -> Measured:
    """One run on servers of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leyden-benchmark-")))
        kafka = stack.enter_context(KafkaBroker(folder / "kafka"))
        redis = stack.enter_context(RedisServer(folder / "redis"))
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
        asyncio.run(ensure_topics(settings, PREFIX))
        running: list[_Replica] = []
        for replica in start_replicas(replicas, kafka.bootstrap_servers, redis.url, folder):
            stack.callback(replica.process.wait)
            stack.callback(replica.process.kill)
            running.append(replica)
        time.sleep(5)  # until the group's rebalancing is over
        for replica in running:
            replica.process.send_signal(signal.SIGSTOP)
        asyncio.run(fill(settings, rollouts, shape, folder))
        expected = rollouts * shape.sequences + rollouts // shape.group_size
        return asyncio.run(work_off(settings, redis, running, rollouts, expected))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.credit", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=4000)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--response-tokens", type=int, default=128)
    parser.add_argument("--separate", action="store_true", help="calls with nothing in common: a sequence each")
    chosen = parser.parse_args()
    turn_tokens = None if chosen.separate else 16
    shape = Shape(chosen.calls, chosen.prompt_tokens, chosen.response_tokens, turn_tokens)
    print(json.dumps(asdict(shape) | asdict(measure(chosen.rollouts, chosen.replicas, shape)), indent=2))


if __name__ == "__main__":
    main()
