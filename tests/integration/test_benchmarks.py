"""The programs that measure run at a tiny size and print what they promise. Nothing is timed here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def printed(program: str, *arguments: str) -> str:
    paths = os.pathsep.join(str(ROOT / source_root) for source_root in ("services", "shared", "."))
    command = [sys.executable, "-m", f"benchmarks.{program}", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.integration
def test_credit_is_measured_from_topics_to_transitions_by_two_replicas() -> None:
    size = ("--calls", "2", "--prompt-tokens", "8", "--response-tokens", "4")
    found = json.loads(printed("credit", "--rollouts", "16", "--replicas", "2", *size))
    assert (found["rollouts"], found["replicas"], found["calls"], found["turn_tokens"]) == (16, 2, 2, 16)
    for number in ("rollouts_per_s", "cpu_ms_per_rollout", "peak_mib", "redis_bytes_per_rollout"):
        assert found[number] > 0, number


@pytest.mark.integration
def test_what_the_gateway_adds_is_measured_plain_and_streamed() -> None:
    lines = printed("gateway", "--rounds", "1", "--seconds", "0.3", "--connections", "1", "4").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    names = ("upstream", "gateway", "gateway, in a rollout")
    assert [row[:3] for row in rows] == [[n, s, c] for s in ("no", "yes") for c in ("1", "4") for n in names]
    assert all(float(row[3]) > 0 for row in rows)
    assert all(float(row[-1]) > 0 for row in rows if row[0] != "upstream")


def test_merging_makes_one_sequence_of_a_conversation() -> None:
    lines = printed("merge", "--turns", "1", "2", "--prompt-tokens", "8", "--response-tokens", "4").splitlines()
    assert lines[0] == "| turns | tokens apart | merged | times fewer |"
    assert lines[2:] == ["| 1 | 12 | 12 | 1.00 |", "| 2 | 44 | 32 | 1.38 |"]


@pytest.mark.integration
def test_the_otlp_door_is_measured_plain_and_with_token_ids() -> None:
    lines = printed("otlp", "--rounds", "1", "--seconds", "0.3", "--connections", "2").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[:2] for row in rows] == [["gateway", "plain"], ["gateway", "token ids"]]
    assert all(float(cell) > 0 for row in rows for cell in row[2:])
