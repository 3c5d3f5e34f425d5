"""The stack as a whole: a real broker, a real Redis, our own engine on a tiny model. Services run in the e2e tests."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from leyden.client.local_stack import is_locked
from leyden.stack import daemon, sweep
from leyden.stack.config import Ports, StackConfig
from leyden.stack.errors import AlreadyRunningError, PreflightError, StackError
from leyden.stack.probes import HttpProbe
from leyden.stack.stack import Stack
from leyden.stack.state import DataFolder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StackConfig]:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    data_dir = tmp_path / "data"
    yield StackConfig(
        data_dir=data_dir, model="tiny", engine="transformers", services=(), ports=Ports.auto(), memory_gib=1.0
    )
    daemon.down(data_dir)


def processes(config: StackConfig) -> list[int]:
    return sweep.find(DataFolder(config.data_dir).stack_id)


def until(true: Callable[[], bool], timeout_s: float = 60.0, pause_s: float = 0.1) -> bool:
    deadline = time.monotonic() + timeout_s
    while not true() and time.monotonic() < deadline:
        time.sleep(pause_s)
    return true()


def test_a_stack_runs_beside_the_shell_until_it_is_taken_down(config: StackConfig) -> None:
    lines: list[str] = []
    state = daemon.up_detached(config, lines.append)
    assert state.phase == "up"
    assert [process.name for process in state.processes] == ["kafka", "redis", "engine"]
    assert {"preflight", "model", "kafka", "redis", "topics", "engine", "total"} <= set(state.timings_s)
    assert any("engine: transformers" in line for line in lines) or lines
    assert HttpProbe(f"{state.engine_url}/health")()
    with pytest.raises(AlreadyRunningError):
        daemon.up_detached(config)
    with pytest.raises(AlreadyRunningError):
        daemon.reset(config.data_dir)
    assert daemon.down(config.data_dir)
    assert processes(config) == []
    assert daemon.status(config.data_dir).phase == "down"
    assert not daemon.down(config.data_dir)
    daemon.reset(config.data_dir)
    assert [path.name for path in config.data_dir.iterdir()] == ["stack.lock"]
    daemon.reset(config.data_dir)


def test_kill_9_of_the_supervisor_leaves_nothing_and_the_next_start_works(config: StackConfig) -> None:
    state = daemon.up_detached(config)
    assert len(processes(config)) >= 3
    os.kill(state.supervisor_pid, signal.SIGKILL)
    assert until(lambda: processes(config) == [])
    assert until(lambda: not any(Path(f"/proc/{each.pid}").exists() for each in state.processes))
    assert daemon.status(config.data_dir).phase == "down"
    assert "killed" in daemon.status(config.data_dir).error
    assert daemon.up_detached(config).phase == "up"


def test_ctrl_c_while_starting_leaves_nothing(config: StackConfig) -> None:
    program = (
        "import sys; from leyden.stack.config import StackConfig; from leyden.stack.stack import Stack\n"
        "with Stack(StackConfig.model_validate_json(sys.argv[1]), lambda line: print(line, flush=True)): pass"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, config.model_dump_json()]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as stack:
        assert stack.stdout is not None
        assert any("kafka is ready" in line for line in stack.stdout)
        stack.send_signal(signal.SIGINT)
        _, error = stack.communicate(timeout=90)
    assert stack.returncode != 0 and "KeyboardInterrupt" in error
    assert processes(config) == []
    assert daemon.status(config.data_dir).phase in ("down", "failed")


def test_ctrl_c_before_the_supervisor_has_its_lock_ends_it(config: StackConfig) -> None:
    program = (
        "import sys; from leyden.stack import daemon; from leyden.stack.config import StackConfig\n"
        "daemon.up_detached(StackConfig.model_validate_json(sys.argv[1]))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, config.model_dump_json()]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as up:
        assert until(lambda: len(supervisors_of(up.pid)) == 1, pause_s=0.01)
        [supervisor] = supervisors_of(up.pid)
        up.send_signal(signal.SIGINT)
        assert not is_locked(DataFolder(config.data_dir).lock)
        _, error = up.communicate(timeout=90)
    try:
        assert error.rstrip().endswith("KeyboardInterrupt")
        assert not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.terminate()


def supervisors_of(pid: int) -> list[psutil.Process]:
    """Those that this process started with `up_detached`."""
    return [each for each in psutil.Process(pid).children() if "leyden.stack.daemon" in each.cmdline()]


SLOW_SUPERVISOR = """
import os, pathlib, sys, time
from leyden.stack.locks import try_lock
from leyden.stack.state import DataFolder, StackState
folder = DataFolder(pathlib.Path(sys.argv[1]))
lock = try_lock(folder.lock)
folder.write_state(StackState())
print("locked", flush=True)
time.sleep(1)
folder.write_state(StackState(phase="starting", supervisor_pid=os.getpid()))
time.sleep(600)
"""


def test_a_supervisor_that_has_not_written_its_pid_is_stopped_once_it_has(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SLOW_SUPERVISOR, str(tmp_path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as supervisor:
        try:
            assert supervisor.stdout is not None and supervisor.stdout.readline() == "locked\n"
            assert daemon.down(tmp_path)
            assert supervisor.wait(10) == -signal.SIGTERM
        finally:
            supervisor.kill()


THIEF = """
import json, pathlib, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(json.dumps({"tried": tried, "taken": taken}))))
tried, taken, loot = 0, [], []
config = pathlib.Path(sys.argv[1])
print("at work", flush=True)
while True:
    ports = json.loads(text)["ports"] if config.exists() and (text := config.read_text()).endswith("}") else {}
    own = [port for value in ports.values() for port in (value if isinstance(value, list) else [value])]
    for port in [*own, *(0,) * 20]:
        thief = socket.socket()
        try:
            thief.bind(("127.0.0.1", port))
            thief.listen()
            taken += [thief.getsockname()[1]] if thief.getsockname()[1] in own else []
        except OSError:
            pass
        tried += port > 0
        loot.append(thief)
    while len(loot) > 500:
        loot.pop(0).close()
    time.sleep(0.001)
"""
"""Takes each port of the stack from the moment it was chosen, and all others as fast as it can."""


def test_a_stack_starts_beside_a_program_that_takes_every_port_it_can(config: StackConfig) -> None:
    file = DataFolder(config.data_dir).config
    with subprocess.Popen([sys.executable, "-c", THIEF, str(file)], stdout=subprocess.PIPE, text=True) as thief:
        try:
            assert thief.stdout is not None and thief.stdout.readline() == "at work\n"
            assert daemon.up_detached(config).phase == "up"
        finally:
            thief.terminate()
            told, _ = thief.communicate()
    seen = json.loads(told)
    assert seen["tried"] > 100
    assert seen["taken"] == []


def test_a_taken_port_stops_the_start_before_anything_runs(config: StackConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = config.model_copy(update={"ports": Ports(**config.ports.model_dump() | {"kafka": port_of(server)})})
        with pytest.raises(PreflightError, match=f"Port {port_of(server)}, for Kafka, is in use"):
            Stack(taken).up()
    assert processes(config) == []
    assert daemon.status(config.data_dir).phase == "failed"


def test_an_unknown_model_is_refused_in_one_sentence(config: StackConfig) -> None:
    with pytest.raises(StackError, match="There is no model 'nonsense'"):
        Stack(config.model_copy(update={"model": "nonsense"})).up()
    assert processes(config) == []


def test_a_folder_that_no_stack_made_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(StackError, match="not made by a stack"):
        daemon.reset(tmp_path)
    assert (tmp_path / "precious").exists()


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])
