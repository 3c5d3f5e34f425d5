"""What the gateway adds to a model call: in front of an engine that answers at once, on real Kafka and Redis.

Each cell is the median of the rounds; in a round every target is measured in turn, so that a slow minute of the machine
meets them all. The client and the engine are processes of their own. CPU is the proxy's own, of all its processes.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import peers
from benchmarks.servers import PREFIX, Bench, Target, measure, medians, post
from leyden.events import PolicyServed
from leyden.events.codec import MODELS
from leyden.kafka import Outgoing
from leyden.kafka.admin import ensure_topics
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.settings import KafkaSettings
from leyden.stack.kafka import KafkaBroker
from leyden.stack.ports import free_port
from leyden.stack.probes import TcpProbe

CHAT = "/v1/chat/completions"
COLUMNS = (
    "target", "stream", "connections", "requests/s", "p50 ms", "p99 ms", "added p50", "added p99", "first byte p50",
    "CPU ms/request",
)  # fmt: skip


def start_engine(bench: Bench, prompt: int, response: int) -> str:
    """Its URL, without a path."""
    port = free_port()
    sizes = ["--prompt-tokens", str(prompt), "--response-tokens", str(response)]
    bench.start([sys.executable, "-m", "benchmarks.fixed_upstream", str(port), *sizes], TcpProbe(port))
    return f"http://127.0.0.1:{port}"


def gateways(bench: Bench, engine: str, replicas: list[int]) -> list[Target]:
    """One gateway called outside of a rollout and in one, and so many of them with the connections shared out."""
    kafka = bench.stack.enter_context(KafkaBroker(bench.folder / "kafka"))
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    asyncio.run(announce(settings, engine, bench.folder))
    urls, processes = bench.gateways(settings, max(replicas))
    targets = []
    for count in replicas:
        name = "gateway" if count == 1 else f"{count} gateways"
        targets.append(Target(name, tuple(url + CHAT for url in urls[:count]), tuple(processes[:count])))
    begun = post(f"{urls[0]}/leyden/v1/rollouts", {"task": {"timeout_s": 86400}})
    in_rollout = urlsplit(begun["base_url"]).path.removesuffix("/v1") + CHAT
    return [*targets, Target("gateway, in a rollout", (urls[0] + in_rollout,), (processes[0],))]


async def announce(settings: KafkaSettings, engine: str, folder: Path) -> None:
    """Make the topics, and tell of the engine as the policy service would."""
    await ensure_topics(settings, PREFIX)
    served = PolicyServed(
        event_id="benchmark", event_time=datetime.now(UTC), producer="policy", policy="policy", version=1,
        replica="r0", endpoint=engine, model="served", engine="vllm",
    )  # fmt: skip
    async with KafkaPublisher(settings, PREFIX, ClaimStore(f"file://{folder}/claims")) as publisher:
        await publisher.publish_all([Outgoing(MODELS, "policy/r0", served)])


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
            able = [t for t in targets if len(t.urls) <= connections and (t.streams or not streams)]
            for _ in range(chosen.rounds):
                for target in able:
                    seen[target.name].append(measure(target, body, connections, chosen.seconds))
            bare = medians(seen[targets[0].name])
            for name, cells in seen.items():
                print(row(name, streams, connections, medians(cells), bare), flush=True)


def row(name: str, streams: bool, connections: int, cell: dict[str, float], bare: dict[str, float]) -> str:
    """A line of the table."""
    added = [cell[p] - bare[p] for p in ("p50_ms", "p99_ms")]
    numbers = [
        f"{cell['per_s']:.0f}",
        *(f"{v:.2f}" for v in (cell["p50_ms"], cell["p99_ms"], *added, cell["first_p50_ms"])),
    ]
    return f"| {name} | {'yes' if streams else 'no'} | {connections} | {' | '.join(numbers)} | {cell['cpu_ms']:.3f} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--response-tokens", type=int, default=16)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1], help="gateways that share the connections out")
    parser.add_argument("--litellm", metavar="PROGRAM", help="LiteLLM's command, from an environment of its own")
    parser.add_argument("--agent-lightning", metavar="PROGRAM", help="Agent Lightning 1.x's agl-server, likewise")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leyden-benchmark-")))
        bench = Bench(stack, folder)
        engine = start_engine(bench, chosen.prompt_tokens, chosen.response_tokens)
        targets = [Target("upstream", (engine + CHAT,)), *gateways(bench, engine, chosen.replicas)]
        if chosen.litellm:
            targets.append(peers.litellm(bench, chosen.litellm, f"{engine}/v1"))
        if chosen.agent_lightning:
            targets.append(peers.agent_lightning(bench, chosen.agent_lightning, f"{engine}/v1"))
        rounds(targets, folder, chosen)


if __name__ == "__main__":
    main()
