"""The runner with processes and programs: each in its rollout, and stopped for certain; limits, progress, notebooks."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import client_agents
import leyden
from client_support import KEY, FakeGateway
from leyden.client import Claim, ConfigurationError
from leyden.client.executors import Command
from leyden.client.outcomes import Outcome
from leyden.client.progress import Bar, Lines, Tally, progress_of
from leyden.client.session import close


@pytest.fixture(autouse=True)
def _disconnect() -> Iterator[None]:
    yield
    close()


def serve(gateway: FakeGateway, agent: Any, **options: Any) -> leyden.Runner:
    """A runner that has done all there was to do."""
    defaults = {"wait_s": 0.2, "retry_timeout_s": 20.0, "until_empty": True}
    runner = leyden.Runner(agent, gateway.url, KEY, **{**defaults, **options})
    runner.run()
    return runner


def end_of(gateway: FakeGateway, trace: str) -> dict[str, Any]:
    [end] = gateway.ends[trace]
    return end


def test_processes_have_each_their_own_environment_and_their_spans_are_counted(gateway: FakeGateway) -> None:
    traces = gateway.enqueue(3)
    runner = serve(gateway, client_agents.by_environment, mode="process", concurrency=2)
    outputs = [end_of(gateway, trace)["output"] for trace in traces]
    assert [output["base_url"] for output in outputs] == [f"{gateway.url}/rollouts/{trace}/v1" for trace in traces]
    assert [output["key"] for output in outputs] == [f"lrk-{trace}" for trace in traces]
    assert len({output["pid"] for output in outputs} | {os.getpid()}) == 4
    assert all(end_of(gateway, trace)["span_count"] == 2 == len(gateway.spans_of(trace)) for trace in traces)
    assert runner.counts == {"succeeded": 3}


def test_an_async_agent_runs_in_a_process_too(gateway: FakeGateway) -> None:
    [trace] = gateway.enqueue(1)
    serve(gateway, client_agents.asynchronous, mode="process")
    assert end_of(gateway, trace) == {"status": "succeeded", "span_count": 2, "reward": 1.0}


def test_a_process_is_killed_with_its_children_when_time_is_up(gateway: FakeGateway, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    [trace] = gateway.enqueue(1, input={"do": "hang", "pids": str(pids)}, timeout_s=8.0)
    began = time.monotonic()
    serve(gateway, client_agents.as_told, mode="process")
    assert time.monotonic() - began < 40
    assert end_of(gateway, trace)["failure"]["failure_class"] == "timeout"
    assert all(is_gone(int(pid)) for pid in pids.read_text().split())


def test_the_ways_in_which_a_process_ends_badly_are_told_apart(gateway: FakeGateway) -> None:
    told = {what: gateway.enqueue(1, input={"do": what})[0] for what in ("raise", "exit", "killed", "nothing")}
    runner = serve(gateway, client_agents.as_told, mode="process", concurrency=4)
    failures = {what: end_of(gateway, trace).get("failure", {}) for what, trace in told.items()}
    assert {what: failure.get("failure_class") for what, failure in failures.items()} == {
        "raise": "agent_exception", "exit": "agent_exception", "killed": "infrastructure", "nothing": None,
    }  # fmt: skip
    assert failures["raise"]["message"] == "KeyError: 'page'"
    assert "exit code 3" in failures["exit"]["message"]
    assert runner.counts == {"agent_exception": 2, "infrastructure": 1, "succeeded": 1}


def test_an_agent_that_no_process_could_import_is_refused_at_once(gateway: FakeGateway) -> None:
    with pytest.raises(ConfigurationError, match="imported by name"):
        leyden.Runner(lambda claim: None, gateway.url, KEY, mode="process")


def test_a_program_is_an_agent_with_the_task_on_its_standard_input(gateway: FakeGateway) -> None:
    traces = gateway.enqueue(2)
    script = 'read task; echo "{\\"task\\": $task, \\"url\\": \\"$OPENAI_BASE_URL\\", \\"score\\": 0.5}"'
    runner = serve(gateway, Command(["sh", "-c", script], "score"), name="shell")
    for number, trace in enumerate(traces):
        url = f"{gateway.url}/rollouts/{trace}/v1"
        assert end_of(gateway, trace) == {
            "status": "succeeded", "span_count": 1, "reward": 0.5,
            "output": {"task": {"n": number}, "url": url, "score": 0.5},
        }  # fmt: skip
    assert runner.tally.reward_sum == 1.0


def test_a_program_that_takes_too_long_is_killed_and_its_last_words_are_kept(gateway: FakeGateway) -> None:
    [trace] = gateway.enqueue(1, timeout_s=0.5)
    serve(gateway, Command(["sh", "-c", "echo stuck >&2; sleep 100"]))
    assert end_of(gateway, trace)["failure"]["message"] == "the agent did not end in 0.5 s\nstuck"


def test_a_program_that_cannot_be_started_is_nobody_elses_fault(gateway: FakeGateway) -> None:
    [trace] = gateway.enqueue(1)
    serve(gateway, Command(["no-such-program"]))
    assert end_of(gateway, trace)["failure"]["failure_class"] == "infrastructure"


def test_a_limit_ends_the_runner_and_leaves_the_rest(gateway: FakeGateway) -> None:
    gateway.enqueue(5)
    runner = serve(gateway, lambda claim: 1.0, limit=3, concurrency=2, until_empty=False)
    assert (runner.counts, len(gateway.queue), len(gateway.ends)) == ({"succeeded": 3}, 2, 3)


async def test_in_a_notebook_the_runner_serves_beside_the_running_loop(gateway: FakeGateway) -> None:
    async def agent(claim: Claim) -> float:
        await asyncio.sleep(0)
        return 1.0

    [trace] = gateway.enqueue(1)
    serve(gateway, agent)
    assert end_of(gateway, trace)["reward"] == 1.0


def test_an_async_agent_may_be_given_threads(gateway: FakeGateway) -> None:
    async def agent(claim: Claim) -> float:
        time.sleep(0.2)  # noqa: ASYNC251 - the point: it blocks its own loop only
        return 1.0

    gateway.enqueue(4)
    began = time.monotonic()
    serve(gateway, agent, mode="thread", concurrency=4)
    assert len(gateway.ends) == 4
    assert time.monotonic() - began < 5


def test_progress_says_what_there_is_to_know(gateway: FakeGateway, caplog: pytest.LogCaptureFixture) -> None:
    gateway.enqueue(1, input=1.0)
    gateway.enqueue(1, input=0.0)
    with caplog.at_level(logging.INFO, "leyden.client"):
        serve(gateway, lambda claim: claim.input, progress=None)
    assert "2 done (0 failed), 0 running" in caplog.text
    assert "mean reward 0.500" in caplog.text


def test_a_tally_counts_failures_and_lost_leases() -> None:
    tally = Tally()
    for outcome in (Outcome(reward=0.5), Outcome("failed", "timeout"), None):
        tally.add(outcome)
    assert (tally.done, tally.failed, tally.counts["lease_lost"]) == (3, 2, 1)
    assert "mean reward 0.500" in tally.line()


def test_a_bar_is_drawn_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(progress_of(None, 3), Lines)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    shown = progress_of(None, 3)
    assert isinstance(shown, Bar)
    with shown:
        shown.show(Tally())
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(progress_of(None, 3), Lines)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
