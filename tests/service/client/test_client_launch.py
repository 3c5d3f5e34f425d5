"""`leyden run`: an unmodified program as one rollout, from outside."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from client_support import KEY, FakeGateway, attributes, wait_until

INSTRUMENTED = """
import json, leyden

@leyden.rollout
def agent():
    leyden.emit_reward(0.5)
    with leyden.operation("plan"):
        leyden.emit_message("thinking")

leyden.init()
agent()
print(json.dumps({"answer": 4, "score": 0.25}))
"""


def start(gateway: FakeGateway, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LEYDEN_GATEWAY_URL": gateway.url, "LEYDEN_API_KEY": KEY,
    }  # fmt: skip
    piped: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-m", "leyden.cli", "run", *arguments], env=environment, text=True, **piped, **options
    )


def leyden_run(gateway: FakeGateway, *arguments: str) -> tuple[int, str, str]:
    program = start(gateway, *arguments)
    out, err = program.communicate(timeout=120)
    return program.returncode, out, err


def the_end(gateway: FakeGateway) -> tuple[str, dict[str, Any]]:
    [(trace_id, [body])] = gateway.ends.items()
    return trace_id, body


def test_an_unmodified_program_is_a_rollout_with_its_model_key_and_input(gateway: FakeGateway) -> None:
    script = 'echo "$OPENAI_BASE_URL $OPENAI_API_KEY"; cat; echo; echo aside >&2'
    asked = ["--name", "solver", "--group", "g", "--group-size", "4", "--task", '{"q": 1}']
    code, out, err = leyden_run(gateway, *asked, "--", "sh", "-c", script)
    trace_id, body = the_end(gateway)
    assert (code, err) == (0, f"leyden: rollout {trace_id}\naside\n")
    assert out == f'{gateway.url}/rollouts/{trace_id}/v1 lrk-{trace_id}\n{{"q": 1}}\n'
    assert body == {"status": "succeeded", "span_count": 1, "output": {"q": 1}}
    [begun] = gateway.starts
    assert (begun["task"]["input"], begun["group_id"], begun["group_size"]) == ({"q": 1}, "g", 4)
    assert [span.name for span in gateway.spans_of(trace_id)] == ["invoke_agent solver"]


def test_an_instrumented_program_joins_the_rollout_and_its_spans_are_counted(gateway: FakeGateway) -> None:
    code, _, err = leyden_run(gateway, "--reward-from", "score", "--", sys.executable, "-c", INSTRUMENTED)
    trace_id, body = the_end(gateway)
    assert (code, err) == (0, f"leyden: rollout {trace_id}\n")
    assert body == {
        "status": "succeeded", "span_count": 5, "reward": 0.25, "output": {"answer": 4, "score": 0.25},
    }  # fmt: skip
    spans = {span.name: span for span in gateway.spans_of(trace_id)}
    [root] = [span for span in spans.values() if span.parent_span_id.hex() == "00000000000000ff"]
    assert spans["invoke_agent agent"].parent_span_id == root.span_id
    assert spans["leyden.message"].parent_span_id == spans["plan"].span_id
    assert len(gateway.starts) == 1
    assert f"Bearer lrk-{trace_id}" in gateway.keys


@pytest.mark.parametrize(
    ("key", "script", "said"),
    [
        (
            "points",
            "echo '{\"score\": 1}'",
            "needs JSON with a finite number at 'points'.*the last line of stdout is .*score",
        ),
        ("score", "echo done", "needs JSON with a finite number at 'score'.*is 'done'"),
        ("score", 'echo \'{"score": "good"}\'', ".*finite number at 'score'"),
        ("score", "true", ".*stdout is empty"),
    ],
)
def test_a_reward_that_is_not_there_is_said(gateway: FakeGateway, key: str, script: str, said: str) -> None:
    code, _, err = leyden_run(gateway, "--reward-from", key, "--", "sh", "-c", script)
    _, body = the_end(gateway)
    assert (code, "reward" in body) == (0, False)
    assert re.search(f"leyden: no reward was recorded: --reward-from {key} {said}", err), err


def test_a_gateway_that_does_not_answer_is_named_within_seconds(gateway: FakeGateway) -> None:
    gateway.stop()
    began = time.monotonic()
    program = start(gateway, "--wait", "60", "--", "true")
    try:
        assert program.stderr is not None
        assert program.stderr.readline() == f"leyden: waiting for the gateway at {gateway.url} (for up to 60 s)\n"
        assert time.monotonic() - began < 30
    finally:
        program.kill()
        program.communicate()


def test_spans_of_a_foreign_exporter_carry_the_rollout_in_their_resource(gateway: FakeGateway) -> None:
    program = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
provider.get_tracer("framework").start_span("chat m").end()
"""
    code, _, err = leyden_run(gateway, "--", sys.executable, "-c", program)
    trace_id, _ = the_end(gateway)
    assert (code, err) == (0, f"leyden: rollout {trace_id}\n")
    resources = [attributes(resource) for resource in gateway.resources]
    assert {"leyden.rollout_id": trace_id[:28], "leyden.attempt": "0"}.items() <= resources[0].items()


def test_a_failing_program_fails_the_rollout_and_its_exit_code_is_ours(gateway: FakeGateway) -> None:
    code, _, err = leyden_run(gateway, "--", "sh", "-c", "echo bad >&2; exit 3")
    trace_id, body = the_end(gateway)
    assert (code, err) == (3, f"leyden: rollout {trace_id}\nbad\n")
    failure = body["failure"]
    assert failure["failure_class"] == "agent_exception"
    assert failure["message"] == "the program ended with exit code 3\nbad"


def test_a_program_that_does_not_end_in_time_is_killed(gateway: FakeGateway, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code, _, _ = leyden_run(
        gateway, "--timeout", "1", "--", "sh", "-c", f"sleep 100 & echo $! > {pid}; echo on >&2; wait"
    )
    assert code == 124
    failure = the_end(gateway)[1]["failure"]
    assert (failure["failure_class"], failure["message"].splitlines()[-1]) == ("timeout", "on")
    wait_until(lambda: is_gone(int(pid.read_text())))


def test_signals_reach_the_program_and_do_not_blame_it(gateway: FakeGateway) -> None:
    program = start(gateway, "--", "sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    try:
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == 7
    assert the_end(gateway)[1]["failure"] == {"failure_class": "interrupted", "message": "stopped by SIGTERM"}


def test_output_passes_while_the_program_runs_and_the_lease_is_kept(gateway: FakeGateway) -> None:
    gateway.lease_s = 0.3
    program = start(gateway, "--", "sh", "-c", "echo first; sleep 1; echo second")
    assert program.stdout
    began = None
    for line in program.stdout:
        began = began or time.monotonic()
        last = line
    assert (last, time.monotonic() - (began or 0) > 0.8) == ("second\n", True)
    program.communicate(timeout=60)
    assert len(gateway.heartbeats) >= 2


def test_a_claimed_task_is_the_programs_input(gateway: FakeGateway) -> None:
    [trace_id] = gateway.enqueue(1, input={"n": 7})
    code, out, _ = leyden_run(gateway, "--claim", "--", "sh", "-c", 'cat; echo; echo "$LEYDEN_TASK_INPUT"')
    assert (code, out) == (0, '{"n": 7}\n{"n": 7}\n')
    assert gateway.ends[trace_id][0]["output"] == {"n": 7}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--", "no-such-program"], 127, "no such file or program"),
        ([], 64, "no program given"),
        (["--claim", "--wait", "0.1", "--", "true"], 75, ""),
        (["--gateway", "nonsense", "--", "true"], 64, "no gateway"),
        (["--gateway", "http://127.0.0.1:9", "--wait", "0.2", "--", "true"], 69, "no answer"),
    ],
)
def test_what_keeps_it_from_running_is_said_in_a_sentence(
    gateway: FakeGateway, arguments: list[str], code: int, said: str
) -> None:
    returned, _, err = leyden_run(gateway, *arguments)
    assert (returned, said in err, len(err.splitlines()) <= 1) == (code, True, True)
    assert gateway.ends == {}


def test_within_a_rollout_the_program_takes_part_in_that_one(gateway: FakeGateway) -> None:
    inner = [sys.executable, "-m", "leyden.cli", "run", "--", "sh", "-c", 'echo "{\\"in\\": \\"$LEYDEN_ROLLOUT_ID\\"}"']
    code, _, _ = leyden_run(gateway, "--", *inner)
    trace_id, body = the_end(gateway)
    assert (code, body["output"], len(gateway.starts)) == (0, {"in": trace_id[:28]}, 1)
    assert json.dumps(body)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
