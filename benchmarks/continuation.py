"""How many turns of real frameworks' conversations begin with exactly the tokens before them, without and with the
gateway's token in, token out. Kafka, Redis, policy server and model are real; the programs are in `conversations/`.

    python -m benchmarks.continuation --python .venv-frameworks/bin/python
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from leyden.client.gateway import GatewayClient
from leyden.events import ModelCallRecorded
from leyden.events.codec import MODEL_CALLS, decode
from leyden.kafka.claims import ClaimStore
from leyden.kafka.reading import read_topics
from leyden.kafka.settings import KafkaSettings
from leyden.reading.location import claims_url_of
from leyden.stack.config import Ports, StackConfig
from leyden.stack.stack import Stack

PROGRAMS = sorted((Path(__file__).parent / "conversations").glob("*.py"))
TURNS = ("Tell me about the sea.", "Go on, please.", "Why is that?", "Say it in other words.", "And what about rivers?")


def measure(python: Path, conversations: int, model: str, continued: bool) -> dict[str, dict[str, int]]:
    """By program, how many turns after the first there were, and how many were exact."""
    with tempfile.TemporaryDirectory(prefix="leyden-benchmark-") as folder:
        setting = {"gateway": {"LEYDEN_GATEWAY_TOKENS_IN": "policy"}} if continued else {}
        config = StackConfig(
            data_dir=Path(folder), model=model, services=("gateway", "policy"), ports=Ports.auto(), process_env=setting
        )
        with Stack(config) as stack:
            rollouts = {program.stem: converse(stack, program, python, conversations) for program in PROGRAMS}
            kafka = KafkaSettings(bootstrap_servers=stack.kafka_servers)
            calls = asyncio.run(recorded(kafka, ClaimStore(claims_url_of(config))))
    by_rollout: dict[str | None, list[ModelCallRecorded]] = {}
    for call in calls:
        by_rollout.setdefault(call.rollout_id, []).append(call)
    return {name: exact(by_rollout[one] for one in ids) for name, ids in rollouts.items()}


def converse(stack: Stack, program: Path, python: Path, conversations: int) -> list[str]:
    """Run the program so often; the ids of its rollouts."""
    gateway = GatewayClient(stack.gateway_url, stack.api_key)
    ids = []
    for number in range(conversations):
        claim = gateway.start({"task": {"task_id": f"{program.stem}-{number}"}})
        env = os.environ | {
            "OPENAI_BASE_URL": claim.base_url, "OPENAI_API_KEY": claim.api_key, "TURNS": json.dumps(TURNS),
        }  # fmt: skip
        subprocess.run([python, program], env=env, check=True, timeout=600, stdout=sys.stderr)
        gateway.end(claim, {"status": "succeeded"})
        ids.append(claim.rollout_id)
        print(f"{program.stem}: conversation {number + 1} of {conversations}", file=sys.stderr)
    gateway.close()
    return ids


async def recorded(kafka: KafkaSettings, claims: ClaimStore) -> list[ModelCallRecorded]:
    """Every model call in the log."""
    events = [decode(MODEL_CALLS, record.value) async for record in read_topics(kafka, claims, MODEL_CALLS)]
    return [event for event in events if isinstance(event, ModelCallRecorded)]


def exact(rollouts: Iterable[Sequence[ModelCallRecorded]]) -> dict[str, int]:
    """Of all turns but the first, those whose prompt begins with the tokens of the call before, prompt and answer."""
    counts = Counter({"turns": 0, "exact": 0})
    for calls in rollouts:
        for before, after in pairwise(sorted(calls, key=lambda call: call.started_at)):
            counts["turns"] += 1
            counts["exact"] += after.prompt_token_ids.startswith(before.prompt_token_ids + before.choices[0].token_ids)
    return dict(counts)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.continuation", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", type=Path, required=True, help="interpreter of an environment with the frameworks")
    parser.add_argument("--conversations", type=int, default=8, help="of each framework")
    parser.add_argument("--model", default="smollm2-135m")
    chosen = parser.parse_args()
    arms = {"without": False, "with": True}
    python = chosen.python.absolute()
    print("| token in, token out | program | turns after the first | exact |\n|---|---|---|---|", flush=True)
    for arm, on in arms.items():
        for name, counts in measure(python, chosen.conversations, chosen.model, on).items():
            share = counts["exact"] / max(counts["turns"], 1)
            print(f"| {arm} | {name} | {counts['turns']} | {counts['exact']} ({share:.0%}) |", flush=True)


if __name__ == "__main__":
    main()
