"""The programs that measure run at a tiny size and print what they promise. Nothing is timed here."""

import json
import os
import subprocess
import sys

import pytest

from roots import ROOT, python_path


def printed(program: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{program}", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": python_path(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def table(output: str) -> list[list[str]]:
    lines = [line for line in output.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.integration
def test_credit_is_measured_from_topics_to_transitions_by_two_replicas() -> None:
    size = ("--calls", "2", "--prompt-tokens", "8", "--response-tokens", "4")
    found = json.loads(printed("credit", "--rollouts", "16", "--replicas", "2", *size))
    assert (found["rollouts"], found["replicas"], found["calls"], found["turn_tokens"]) == (16, 2, 2, 16)
    for number in ("rollouts_per_s", "cpu_ms_per_rollout", "peak_mib", "redis_bytes_per_rollout"):
        assert found[number] > 0, number


@pytest.mark.integration
def test_what_the_gateway_adds_is_measured_plain_and_streamed() -> None:
    size = ("--rounds", "1", "--seconds", "0.3", "--connections", "1", "4", "--replicas", "1", "2")
    rows = table(printed("gateway", *size))
    alone = [["upstream", "1"], ["gateway", "1"], ["gateway, in a rollout", "1"]]
    shared = [["upstream", "4"], ["gateway", "4"], ["2 gateways", "4"], ["gateway, in a rollout", "4"]]
    expected = [[name, streams, c] for streams in ("no", "yes") for name, c in (*alone, *shared)]
    assert [row[:3] for row in rows] == expected
    assert all(float(row[3]) > 0 for row in rows)
    assert all(float(row[-1]) > 0 for row in rows if row[0] != "upstream")


def test_merging_makes_one_sequence_of_a_conversation() -> None:
    lines = printed("merge", "--turns", "1", "2", "--prompt-tokens", "8", "--response-tokens", "4").splitlines()
    assert lines[0] == "| turns | tokens apart | merged | times fewer |"
    assert lines[2:] == ["| 1 | 12 | 12 | 1.00 |", "| 2 | 44 | 32 | 1.38 |"]


@pytest.mark.integration
def test_the_otlp_door_is_measured_plain_and_with_token_ids() -> None:
    rows = table(printed("otlp", "--rounds", "1", "--seconds", "0.3", "--connections", "2"))
    assert [row[:2] for row in rows] == [["gateway", "plain"], ["gateway", "token ids"]]
    assert all(float(cell) > 0 for row in rows for cell in row[2:])


@pytest.mark.integration
def test_ingest_works_a_backlog_off_and_its_memory_is_measured() -> None:
    rows = table(printed("ingest", "--kafka", "--requests", "3"))
    assert [row[:3] for row in rows] == [["plain", "3", "300"], ["token ids", "3", "300"]]
    assert all(float(row[-1]) >= float(row[-2]) > 0 for row in rows)


@pytest.mark.integration
def test_the_gateways_memory_is_measured_while_kafka_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_GATEWAY_PUBLISH_TIMEOUT_S", "1")
    rows = table(printed("backlog", "--connections", "2", "--seconds", "0.3"))
    assert [row[:2] for row in rows] == [["/v1/chat/completions", "2"], ["/v1/traces", "2"]]
    for *_, taken, unavailable, too_many, before, peak, _well in rows:
        assert (int(taken), int(too_many)) == (0, 0)
        assert int(unavailable) >= 2
        assert float(peak) >= float(before) > 0


def test_one_core_of_ingest_is_measured_on_every_recording() -> None:
    rows = table(printed("ingest", "--rounds", "1", "--seconds", "0.01"))
    recorded = sorted(path.stem for path in (ROOT / "tests/golden/spans").glob("*.json"))
    assert [row[0] for row in rows] == ["plain", *recorded]
