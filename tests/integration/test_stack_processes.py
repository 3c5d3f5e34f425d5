"""Real processes under the supervisor: the dead run again, the hopeless fail the stack, nobody is left behind."""

import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from leyden.client.local_stack import is_locked
from leyden.stack import sweep
from leyden.stack.errors import ProcessError, StackError
from leyden.stack.locks import try_lock
from leyden.stack.ports import free_port
from leyden.stack.probes import HttpProbe, Probe, TcpProbe
from leyden.stack.processes import ProcessSpec, Supervisor

SLEEPER = "import time; time.sleep(600)"
GRANDCHILD = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); time.sleep(600)"
ESCAPED = (
    "import subprocess, sys, time;"
    f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True); time.sleep(600)"
)
NAMELESS = f"import os, sys, time;os.execve(sys.executable, [sys.executable, '-S', '-c', {GRANDCHILD!r}], {{}})"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)
SLOW_ENDER = """
import signal, sys, time
def end(*_):
    time.sleep(0.3)
    print(sys.argv[2], end="", file=open(sys.argv[1], "a"), flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("listening", flush=True)
time.sleep(600)
"""
LISTENER = """
import socket, sys, time
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
"""


def python(name: str, code: str, *arguments: str, **settings: object) -> ProcessSpec:
    argv = (sys.executable, "-S", "-c", code, *arguments)
    return ProcessSpec(name=name, argv=argv, **settings)  # type: ignore[arg-type]


def until(true: Callable[[], bool], timeout_s: float = 15.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def children(pid: int) -> list[int]:
    """Whichever thread started them: the supervisor's watchers start again what died."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in lists for child in each.read_text().split()]


def nameless_children(pid: int) -> list[int]:
    return [child for child in children(pid) if Path(f"/proc/{child}/environ").read_bytes() == b""]


@pytest.fixture
def stack_id(tmp_path: Path) -> str:
    return f"test-{tmp_path.name}-{os.getpid()}"


def test_a_process_is_ready_when_its_port_answers(tmp_path: Path, stack_id: str) -> None:
    port = free_port()
    ready: list[str] = []
    with Supervisor(stack_id, tmp_path) as supervisor:
        supervisor.start(python("listener", LISTENER, str(port), ready=TcpProbe(port)))
        supervisor.wait_ready(on_ready=lambda name, seconds: ready.append(name))
        assert ready == ["listener"]
        assert not HttpProbe(f"http://127.0.0.1:{port}/")()
    assert sweep.find(stack_id) == []
    assert not TcpProbe(port)()


def test_a_process_that_is_killed_runs_again(tmp_path: Path, stack_id: str) -> None:
    with Supervisor(stack_id, tmp_path) as supervisor:
        supervisor.start(python("sleeper", SLEEPER, first_backoff_s=0.05))
        first = supervisor.states()[0].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert until(lambda: supervisor.states()[0].pid not in (None, first))
        assert supervisor.states()[0].deaths == 1
        supervisor.check()


def test_a_process_that_keeps_dying_fails_with_its_last_words(tmp_path: Path, stack_id: str) -> None:
    code = "import sys; sys.exit('the disk is on fire')"
    with Supervisor(stack_id, tmp_path) as supervisor:
        supervisor.start(python("doomed", code, first_backoff_s=0.01, max_backoff_s=0.01))
        assert supervisor.wait_failed(30.0)
        ended = "doomed ended 5 times in 60 s; the last time it exited with status 1"
        with pytest.raises(ProcessError, match=rf"{ended}(.|\n)*the disk is on fire"):
            supervisor.check()


def test_a_process_on_a_full_disk_is_started_until_there_is_room_and_says_what_it_waits_for(
    tmp_path: Path, stack_id: str
) -> None:
    room, running = tmp_path / "room", tmp_path / "running"
    code = f"""
import errno, os, pathlib, time
if not pathlib.Path({str(room)!r}).exists():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
pathlib.Path({str(running)!r}).touch()
time.sleep(100)
"""

    def write_state() -> None:
        if not room.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    waits: set[str] = set()

    def died(times: int) -> bool:
        [state] = supervisor.states()
        waits.update([state.waits_for] if state.pid is None else [])
        return state.deaths >= times

    with Supervisor(stack_id, tmp_path, on_change=write_state, free_disk=lambda folder: 2**20) as supervisor:
        supervisor.start(python("kafka", code, first_backoff_s=0.01, full_disk_backoff_s=0.1, max_deaths=2))
        assert until(lambda: died(4) and len(waits - {""}) == 1)
        room.touch()
        deaths = supervisor.states()[0].deaths
        assert until(lambda: running.exists() and supervisor.states()[0].pid is not None)
        supervisor.check()
        assert supervisor.states()[0].waits_for == ""
        assert supervisor.states()[0].deaths <= deaths + 2
    assert waits - {""} == {"the disk is full; it goes on when there is room"}


FULL = "import errno, os, sys; print(os.strerror(errno.ENOSPC), flush=True)"


@pytest.mark.parametrize(
    ("code", "free", "ready"),
    [
        (f"{FULL}; sys.exit(1)", 2**40, None),
        (f"{FULL}; print('and then this.' * 2000, flush=True); sys.exit(1)", 2**20, None),
        (f"{FULL}; sys.exit(1)", 2**20, lambda: False),
    ],
    ids=["only /dev/shm was full", "it said so long before its end", "it was never ready"],
)
def test_a_process_that_room_on_the_disk_would_not_help_fails(
    code: str, free: int, ready: Probe | None, tmp_path: Path, stack_id: str
) -> None:
    with Supervisor(stack_id, tmp_path, free_disk=lambda folder: free) as supervisor:
        supervisor.start(python("engine", code, first_backoff_s=0.01, max_deaths=2, ready=ready))
        assert supervisor.wait_failed(30.0)
        with pytest.raises(ProcessError, match="engine ended 2 times"):
            supervisor.check()


def test_a_change_that_could_not_be_written_is_told_again(tmp_path: Path, stack_id: str) -> None:
    room = tmp_path / "room"
    told: list[int | None] = []

    def write_state() -> None:
        if not room.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        told.extend(state.pid for state in supervisor.states())

    with Supervisor(stack_id, tmp_path, on_change=write_state) as supervisor:
        supervisor.start(python("sleeper", SLEEPER))
        assert not supervisor.wait_failed(0.05)
        assert told == []
        room.touch()
        assert not supervisor.wait_failed(0.05)
        assert told == [supervisor.states()[0].pid] != [None]


def test_a_process_that_may_not_restart_fails_at_once(tmp_path: Path, stack_id: str) -> None:
    with Supervisor(stack_id, tmp_path) as supervisor:
        supervisor.start(python("once", "raise SystemExit(3)", restart=False, ready=TcpProbe(free_port())))
        empty = r"Its log, .*once\.log, is empty\."
        with pytest.raises(ProcessError, match=rf"once exited with status 3\.\n{empty}\nCorrect the cause"):
            supervisor.wait_ready()


def test_a_process_that_never_gets_ready_is_named(tmp_path: Path, stack_id: str) -> None:
    waits: list[list[str]] = []
    with Supervisor(stack_id, tmp_path) as supervisor:
        supervisor.start(python("slow", SLEEPER, ready=TcpProbe(free_port()), ready_timeout_s=0.8))
        with pytest.raises(ProcessError, match="slow was not ready after 1 s"):
            supervisor.wait_ready(on_wait=lambda names, seconds: waits.append(list(names)))
    assert waits[0] == ["slow"]


def test_a_program_that_is_not_there_is_refused(tmp_path: Path, stack_id: str) -> None:
    with Supervisor(stack_id, tmp_path) as supervisor:
        with pytest.raises(StackError, match="ghost could not be started"):
            supervisor.start(ProcessSpec("ghost", ("/no/such/program",)))
        assert supervisor.states() == []


def test_stop_ends_a_process_that_ignores_sigterm(tmp_path: Path, stack_id: str) -> None:
    with Supervisor(stack_id, tmp_path) as supervisor:
        supervisor.start(python("stubborn", STUBBORN, stop_timeout_s=0.3))
        assert until(lambda: "deaf" in supervisor.log_tail("stubborn"))
    assert sweep.find(stack_id) == []


@pytest.mark.parametrize("code", [GRANDCHILD, ESCAPED], ids=["same session", "own session"])
def test_stop_ends_grandchildren(code: str, tmp_path: Path, stack_id: str) -> None:
    with Supervisor(stack_id, tmp_path) as supervisor:
        supervisor.start(python("parent", code))
        assert until(lambda: len(sweep.find(stack_id)) == 2)
    assert sweep.find(stack_id) == []


def test_a_dead_processs_children_are_gone_before_it_runs_again(tmp_path: Path, stack_id: str) -> None:
    with Supervisor(stack_id, tmp_path) as supervisor:
        supervisor.start(python("parent", GRANDCHILD, first_backoff_s=600.0, max_backoff_s=600.0))
        assert until(lambda: len(sweep.find(stack_id)) == 2)
        pid = supervisor.states()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: sweep.find(stack_id) == [])


def test_higher_stages_end_first(tmp_path: Path, stack_id: str) -> None:
    order = tmp_path / "order"
    with Supervisor(stack_id, tmp_path) as supervisor:
        for name, stage in (("s", 0), ("x", 1)):
            supervisor.start(python(name, SLOW_ENDER, str(order), name, stage=stage))
        assert until(lambda: all("listening" in supervisor.log_tail(name) for name in "sx"))
    assert order.read_text() == "xs"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_supervisor_leaves_no_process_and_no_lock(number: int, tmp_path: Path, stack_id: str) -> None:
    program = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from leyden.stack.locks import try_lock
        from leyden.stack.processes import ProcessSpec, Supervisor
        folder = Path({str(tmp_path)!r})
        supervisor = Supervisor({stack_id!r}, folder, held=(try_lock(folder / "lock"),))
        for name, code in (("a", {GRANDCHILD!r}), ("b", {ESCAPED!r}), ("c", {STUBBORN!r}), ("d", {NAMELESS!r})):
            supervisor.start(ProcessSpec(name, (sys.executable, "-S", "-c", code)))
        time.sleep(600)
    """)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], env=env) as supervisor:
        try:
            until(lambda: len(sweep.find(stack_id)) == 5 and len(nameless_children(supervisor.pid)) == 1, 60.0)
            nameless = nameless_children(supervisor.pid)
            logs = {log.name: log.read_text() for log in tmp_path.glob("*.log")}
            assert (len(sweep.find(stack_id)), len(nameless)) == (5, 1), (children(supervisor.pid), logs)
            assert is_locked(tmp_path / "lock")
            supervisor.send_signal(number)
            supervisor.wait(30)
        finally:
            supervisor.kill()
    assert until(lambda: sweep.find(stack_id) == [])
    assert until(lambda: not Path(f"/proc/{nameless[0]}").exists())
    assert until(lambda: not is_locked(tmp_path / "lock"))


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    held = try_lock(tmp_path / "lock")
    assert held is not None
    assert try_lock(tmp_path / "lock") is None
    assert is_locked(tmp_path / "lock")
    os.close(held)
    assert not is_locked(tmp_path / "lock")


def test_a_probe_of_a_silent_server_says_no() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not TcpProbe(server.getsockname()[1], question=b"PING\r\n", least=5)()


def test_a_process_that_hides_its_environment_is_found_by_its_session(tmp_path: Path, stack_id: str) -> None:
    with Supervisor(stack_id, tmp_path) as supervisor:
        supervisor.start(python("nameless", NAMELESS))
        pid = supervisor.states()[0].pid
        assert pid is not None
        assert until(lambda: len(children(pid)) == 1 and sweep.find(stack_id) == [])
        started = (pid, sweep.start_time(pid))
        assert sweep.find(stack_id, {started}) == sorted([pid, *children(pid)])
        assert sweep.find(stack_id, {(pid, started[1] - 1)}) == []


def test_a_watchdog_that_was_killed_is_replaced(tmp_path: Path, stack_id: str) -> None:
    def watchdogs() -> list[int]:
        """Its last argument names the stack that it is for."""
        found = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children(os.getpid())}
        return [child for child, argv in found.items() if stack_id.encode() in argv.split(b"\0")]

    with Supervisor(stack_id, tmp_path) as supervisor:
        supervisor.start(python("first", SLEEPER))
        assert until(lambda: len(watchdogs()) == 1)
        [watchdog] = watchdogs()
        os.kill(watchdog, signal.SIGKILL)
        os.waitid(os.P_PID, watchdog, os.WEXITED | os.WNOWAIT)
        supervisor.start(python("second", SLEEPER))
        assert until(lambda: len(watchdogs()) == 1 and watchdogs() != [watchdog])
    assert sweep.find(stack_id) == []
