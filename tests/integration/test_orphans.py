"""A run of the suite that is killed leaves none of the processes that its tests started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from roots import ROOT, python_path
from waiting import wait_until

pytestmark = pytest.mark.integration
TEST = """
import os, subprocess, sys, time

def test_that_is_killed():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    with open({pids!r} + ".part", "w") as file:
        file.write(f"{{os.getpid()}} {{child.pid}}")
    os.rename({pids!r} + ".part", {pids!r})
    time.sleep(300)
"""


def test_a_killed_run_leaves_no_process(tmp_path: Path) -> None:
    """The test's process is a worker of pytest-xdist, and its child leads a session of its own."""
    pids = tmp_path / "pids"
    (tmp_path / "test_killed.py").write_text(TEST.format(pids=str(pids)))
    path = os.pathsep.join([python_path(), str(ROOT / "tests")])
    command = [sys.executable, "-m", "pytest", "-q", "-n1", "-p", "conftest", "-p", "no:cacheprovider"]
    run = subprocess.Popen(
        [*command, f"--rootdir={tmp_path}", str(tmp_path)], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}
    )
    try:
        wait_until(pids.exists, 60)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    started = [int(pid) for pid in pids.read_text().split()]
    wait_until(lambda: not any(map(is_running, started)), 20)


def is_running(pid: int) -> bool:
    """Whether the process is there, and not only its exit status."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
