"""Records the rollouts of real agent frameworks: python tests/golden/record.py NAME… --python <their environment>.

Kafka, Redis, gateway, ingest and reward run for real; the policy server is scripted. What the topics then hold of a
framework's group is written to recordings/<framework>.jsonl, one `{"topic", "origin", "event"}` a line. The
environment is that of requirements/frameworks.txt, or for an agent of span_agents/ the one that its spans were recorded
in; for one in JavaScript `--python` is a folder with its packages. A framework that is recorded anew gives new ids; its
expected transitions follow with `python -m pytest tests/golden --update-golden`, and are read before they are kept.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), *(str(ROOT / name) for name in ("services", "shared", "workbench"))]

import scripted_engine  # noqa: E402

from bundled import NODE  # noqa: E402
from leyden.client.gateway import GatewayClient  # noqa: E402
from leyden.events import PolicyServed  # noqa: E402
from leyden.events.codec import MODEL_CALLS, MODELS, REWARDS, ROLLOUTS, SPANS  # noqa: E402
from leyden.ids import derive  # noqa: E402
from leyden.kafka import Outgoing  # noqa: E402
from leyden.kafka.admin import ensure_topics  # noqa: E402
from leyden.kafka.claims import ClaimStore  # noqa: E402
from leyden.kafka.publisher import KafkaPublisher  # noqa: E402
from leyden.kafka.reading import read_topics  # noqa: E402
from leyden.kafka.settings import KafkaSettings  # noqa: E402
from leyden.stack.kafka import KafkaBroker  # noqa: E402
from leyden.stack.ports import free_port, free_ports  # noqa: E402
from leyden.stack.probes import HttpProbe  # noqa: E402
from leyden.stack.processes import ProcessSpec, Supervisor  # noqa: E402
from leyden.stack.redis import RedisServer  # noqa: E402
from roots import python_path  # noqa: E402

KEY = "golden-key"
QUESTIONS = ("How many people live in Leiden?", "How many people live in Atlantis?")
REWARDED = (1.0, 0.0)
_WHERE_INSTALLED = re.compile(r"(?:file://)?/[^\s\"\\\\]*/(?=site-packages/|agents/|lib/python|node_modules/|\w+\.mjs)")
"""What stack traces say of the recording machine."""
RECORDED = (ROLLOUTS, MODEL_CALLS, SPANS, REWARDS)


def record(framework: Path, python: Path) -> None:
    """Run one framework's agent on both questions, as one group, and write what was recorded of it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leyden-golden-")))
        kafka = KafkaSettings(bootstrap_servers=stack.enter_context(KafkaBroker(folder / "kafka")).bootstrap_servers)
        redis = stack.enter_context(RedisServer(folder / "redis"))
        engine_port = free_port()
        serve_engine(engine_port)
        asyncio.run(ensure_topics(kafka, ""))
        asyncio.run(announce(kafka, f"http://127.0.0.1:{engine_port}", folder))
        gateway_port, *ops = free_ports(4)
        supervisor = stack.enter_context(Supervisor(f"golden-{os.getpid()}", folder / "logs"))
        start_services(supervisor, kafka, redis.url, gateway_port, ops, folder)
        supervisor.wait_ready()
        run_agents(framework, python, f"http://127.0.0.1:{gateway_port}")
        lines = asyncio.run(recorded(kafka, ClaimStore(f"file://{folder}/claims")))
    (HERE / "recordings" / f"{framework.stem}.jsonl").write_text("".join(lines))
    print(f"{framework.stem}: {len(lines)} events")


def serve_engine(port: int) -> None:
    """The scripted policy server, in a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(scripted_engine.app, port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)


async def announce(kafka: KafkaSettings, endpoint: str, folder: Path) -> None:
    """Tell the gateway where the policy is served."""
    policy, _, version = scripted_engine.VERSION.partition("@")
    served = PolicyServed(
        event_id=derive("golden", endpoint), event_time=datetime.now(UTC), producer="policy", policy=policy,
        version=int(version), replica="golden", endpoint=endpoint, model=policy, engine="scripted",
    )  # fmt: skip
    async with KafkaPublisher(kafka, "", ClaimStore(f"file://{folder}/claims")) as publisher:
        await publisher.publish_all([Outgoing(MODELS, f"{policy}/golden", served)])


def start_services(
    supervisor: Supervisor, kafka: KafkaSettings, redis_url: str, gateway_port: int, ops: list[int], folder: Path
) -> None:
    """gateway, ingest and reward, with the rules whose rewards the expectations show."""
    rules = yaml.safe_load((HERE / "run.yaml").read_text())
    rules["reward"]["settle"] = "live"
    run_file = folder / "run.yaml"
    run_file.write_text(yaml.safe_dump(rules))
    shared = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "REDIS_URL": redis_url, "LEYDEN_RUN_FILE": str(run_file),
        "LEYDEN_DATA_DIR": str(folder), "LEYDEN_GATEWAY_PORT": str(gateway_port), "LEYDEN_GATEWAY_API_KEYS": KEY,
        "LEYDEN_GATEWAY_SECRET": "golden-secret-of-some-length-0123",
        "PYTHONPATH": python_path(),
    }  # fmt: skip
    for name, port in zip(("gateway", "ingest", "reward"), ops, strict=True):
        env = shared | {"LEYDEN_OPS_PORT": str(port)}
        ready = HttpProbe(f"http://127.0.0.1:{port}/readyz")
        supervisor.start(ProcessSpec(name, (sys.executable, "-m", f"leyden.{name}"), env=env, ready=ready))


def run_agents(framework: Path, python: Path, url: str) -> None:
    """One rollout for each question; the agent knows an address, a key and where its spans go."""
    gateway = GatewayClient(url, KEY)
    for question, reward in zip(QUESTIONS, REWARDED, strict=True):
        claim = gateway.start({"task": {"task_id": framework.stem, "input": question}, "group_id": framework.stem,
                               "group_size": len(QUESTIONS)})  # fmt: skip
        env = os.environ | {
            "QUESTION": question, "OPENAI_BASE_URL": claim.base_url, "OPENAI_API_KEY": claim.api_key,
            "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_HEADERS": f"Authorization=Bearer%20{claim.api_key}",
            "ANTHROPIC_API_KEY": claim.api_key, "TRACEPARENT": claim.traceparent,
            "OPENAI_AGENTS_DISABLE_TRACING": "0", "OTEL_SERVICE_NAME": framework.stem,
        }  # fmt: skip
        done = subprocess.run(
            command_of(framework, python), env=env, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode:
            raise SystemExit(f"{framework.stem} failed:\n{done.stderr[-4000:]}")
        print(f"{framework.stem}: {question} {done.stdout.strip()}")
        gateway.end(claim, {"status": "succeeded", "reward": reward, "output": done.stdout.strip()})
    time.sleep(5)


def command_of(framework: Path, python: Path) -> list[str]:
    """The command that runs the agent. Node looks for packages beside the program."""
    if framework.suffix != ".mjs":
        return [str(python), str(framework)]
    copied = python / framework.name
    copied.write_text(framework.read_text())
    return [str(NODE), str(copied)]


async def recorded(kafka: KafkaSettings, claims: ClaimStore) -> list[str]:
    """Everything in the recorded topics, a line each, in the order of topic, partition and offset."""
    lines = []
    async for record in read_topics(kafka, claims, *RECORDED):
        origin = f"{record.topic}/{record.partition}/{record.offset}"
        line = json.dumps({"topic": record.topic, "origin": origin, "event": json.loads(record.value)})
        lines.append(_WHERE_INSTALLED.sub("", line) + "\n")
    return sorted(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="interpreter of an environment with the frameworks")
    parser.add_argument("frameworks", nargs="*", help="names of files in agents/; all when none is given")
    chosen = parser.parse_args()
    for name in chosen.frameworks or sorted(path.stem for path in (HERE / "agents").glob("*.py")):
        [framework] = [*(HERE / "agents").glob(f"{name}.*"), *(HERE / "span_agents").glob(f"{name}.*")]
        record(framework, chosen.python)


if __name__ == "__main__":
    main()
