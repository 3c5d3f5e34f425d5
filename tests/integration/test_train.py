"""`leyden.train` and `leyden train` on real servers: an agent of one's own is trained, and a second run goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import openai
import pytest

import leyden
from leyden.client import Claim
from leyden.stack.stack import Stack
from leyden.training.door import Asked, plan_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

REWARD = '''
def score(rollout):
    """Differs within a group whatever a random model writes."""
    return len(rollout.final_text or "") % 7 / 7
'''
AGENT = """
import openai


def agent(claim):
    client = openai.OpenAI(base_url=claim.base_url, api_key=claim.api_key, max_retries=20)
    reply = client.chat.completions.create(
        model="policy", max_tokens=8, messages=[{"role": "user", "content": claim.input}]
    )
    return {"text": reply.choices[0].message.content}
"""
OPTIONS = {
    "groups": 2, "samples": 3, "holdout": 2, "evaluate_every": 1, "learning_rate": 0.02, "model": "tiny",
    "engine": "transformers", "auto_ports": True,
}  # fmt: skip


def agent(claim: Claim) -> str:
    client = openai.OpenAI(base_url=claim.base_url, api_key=claim.api_key, max_retries=20)
    messages = [{"role": "user", "content": claim.input}]
    reply = client.chat.completions.create(model="policy", max_tokens=8, messages=messages)  # type: ignore[arg-type]
    return reply.choices[0].message.content or ""


@pytest.fixture
def folder(
    kafka_servers: str, redis_server_url: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A user's folder, with the agent, its reward and tasks; the tests' servers are the stack's."""
    for name, value in (
        ("KAFKA_BOOTSTRAP_SERVERS", kafka_servers), ("REDIS_URL", redis_server_url),
        ("LEYDEN_TOPIC_PREFIX", topic_prefix), ("LEYDEN_TRAINER_THREADS", "1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    (tmp_path / "tiny_rewards.py").write_text(REWARD)
    (tmp_path / "tiny_agent.py").write_text(AGENT)
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps({"input": f"say {n}"}) + "\n" for n in range(6)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def command(*arguments: object) -> str:
    """What a command printed; without settings of ours, it finds the stack in its folder."""
    done = subprocess.run(
        [sys.executable, "-m", "leyden.cli", *map(str, arguments)],
        env=os.environ | {"COLUMNS": "160"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_agent_is_trained_and_a_second_run_goes_on_where_the_first_ended(folder: Path) -> None:
    about = {"tasks": "tasks.jsonl", "reward": "tiny_rewards.py:score", "data_dir": folder / "stack"}
    plan = plan_of(Asked(agent=agent, **about, **OPTIONS))  # type: ignore[arg-type]
    with Stack(plan.stack):
        first = leyden.train(agent, updates=1, **about, **OPTIONS)  # type: ignore[arg-type]
        assert [update.number for update in first.updates] == [1]
        assert [one.version for one in first.held_out] == [0, 1]
        assert all(one.judged == one.rollouts == 2 for one in first.held_out)
        assert first.versions == [1]
        assert first.problems == ()

        options = [part for key, value in OPTIONS.items() for part in (f"--{key.replace('_', '-')}", value)]
        options = [part for part in options if part is not True]
        said = command(
            "train", "tiny_agent.py:agent", "--tasks", "tasks.jsonl", "--reward", "tiny_rewards.py:score",
            "--updates", 2, "--data-dir", folder / "stack", *options,
        )  # fmt: skip
        lines = [line.split("  ")[0].strip() for line in said.splitlines()]
        assert lines[:5] == ["held out", "update 1/2", "held out", "update 2/2", "held out"], said
        assert f"reward {first.updates[0].reward:.3f}  version 1" in said
        assert "best: " in said

        curve = command("rewards", "--by", "version", "--data-dir", folder / "stack")
        assert [version in curve for version in ("policy@0", "policy@1", "policy@2")] == [True] * 3
        assert curve.index("held-out tasks (validation)") < curve.index("outcome *")

    with (folder / "stack" / "run" / "run.yaml").open() as file:
        assert "tiny_rewards:score" in file.read()
    assert ("its weights: " in said) == (folder / "stack" / "best").exists()
