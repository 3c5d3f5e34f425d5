"""A runner that is killed (-9) leaves nothing behind: neither programs nor processes, nor what they started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from client_support import KEY, FakeGateway, wait_until
from leyden.client.guard import Guard

PROCESSES = """
import sys, client_agents, leyden
leyden.Runner(client_agents.as_told, sys.argv[1], sys.argv[2], mode="process", wait_s=0.2).run()
"""


@contextmanager
def started(gateway: FakeGateway, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LEYDEN_GATEWAY_URL": gateway.url, "LEYDEN_API_KEY": KEY,
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kill_and_see_the_end_of(process: "subprocess.Popen[bytes]", pids: Path) -> None:
    wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), 60)
    noted = [int(pid) for pid in pids.read_text().split()]
    assert not any(map(is_gone, noted))
    process.kill()
    try:
        wait_until(lambda: all(map(is_gone, noted)), 20)
    finally:
        for pid in noted:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("command", ["run", "runner"])
def test_a_program_and_what_it_started_end_with_a_killed_runner(
    gateway: FakeGateway, tmp_path: Path, command: str
) -> None:
    gateway.enqueue(1)
    pids, script = tmp_path / "pids", tmp_path / "agent.sh"
    script.write_text(f"trap '' TERM; sleep 100 & echo $$ $! > {pids}; wait; sleep 100")
    told = {"run": ["run", "--", "sh", str(script)], "runner": ["runner", "--command", f"sh {script}"]}
    with started(gateway, "-m", "leyden.cli", *told[command]) as runner:
        kill_and_see_the_end_of(runner, pids)


@pytest.mark.parametrize("what", ["hang", "hang holding the interpreter"])
def test_an_agents_process_and_what_it_started_end_with_a_killed_runner(
    gateway: FakeGateway, tmp_path: Path, what: str
) -> None:
    pids = tmp_path / "pids"
    gateway.enqueue(1, input={"do": what, "pids": str(pids)})
    with started(gateway, "-c", PROCESSES, gateway.url, KEY) as runner:
        kill_and_see_the_end_of(runner, pids)


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(["sleep", "100"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def guard() -> Iterator[Guard]:
    made = Guard()
    yield made
    made.close()


def test_what_was_forgotten_lives_on(guard: Guard, sleeper: "subprocess.Popen[bytes]") -> None:
    with subprocess.Popen(["sleep", "100"]) as other:
        guard.watch(sleeper.pid)
        guard.watch(other.pid)
        guard.forget(sleeper.pid)
        guard.close()
        assert other.wait(20) == -signal.SIGKILL
    assert sleeper.poll() is None


def test_a_guard_that_was_killed_is_replaced_and_knows_what_it_watched(
    guard: Guard, sleeper: "subprocess.Popen[bytes]"
) -> None:
    guard.watch(sleeper.pid)
    first = guard.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: is_gone(first))
    guard.forget(2**22 + 1)
    assert guard.pid not in (None, first)
    guard.close()
    assert sleeper.wait(20) == -signal.SIGKILL


def test_a_forked_child_that_ends_leaves_the_guard_to_its_parent(
    guard: Guard, sleeper: "subprocess.Popen[bytes]"
) -> None:
    guard.watch(sleeper.pid)
    child = os.fork()
    if child == 0:
        guard.after_fork()
        guard.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    time.sleep(0.3)
    assert sleeper.poll() is None
    guard.close()
    assert sleeper.wait(20) == -signal.SIGKILL


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
