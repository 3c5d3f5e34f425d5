"""A process that is stopped, gone or not ready is not up, and `leyden status` says why."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from leyden.cli.watch_view import print_processes
from leyden.cli.watching import StackView
from leyden.stack.config import Ports, StackConfig
from leyden.stack.errors import DISK_FULL
from leyden.stack.health import health_of
from leyden.stack.ports import free_port
from leyden.stack.state import DataFolder, ProcessStatus, StackState
from waiting import wait_until

pytestmark = pytest.mark.integration
SERVE = """
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"status": "unavailable", "reason": "no replica serves policy"}'
        self.send_response(int(sys.argv[2])); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""


class Gateway:
    """A process with the gateway's readiness route."""

    def __init__(self, folder: Path, answer: int) -> None:
        self.port = free_port()
        self.process = subprocess.Popen([sys.executable, "-S", "-c", SERVE, str(self.port), str(answer)])
        self.folder = DataFolder(folder)
        config = StackConfig(data_dir=folder, ports=Ports(ops=(self.port, *Ports().ops[1:])))
        self.folder.root.mkdir(exist_ok=True)
        self.folder.config.write_text(config.model_dump_json())

    def seen(self) -> StackView:
        status = ProcessStatus(name="gateway", pid=self.process.pid, deaths=0, log=self.folder.logs / "gateway.log")
        state = StackState(phase="up", processes=[status])
        return StackView(state, health_of(self.folder, state))


@pytest.fixture(params=[200])
def gateway(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    made = Gateway(tmp_path, request.param)
    wait_until(lambda: made.seen().processes[0].why != "it does not answer")
    yield made
    made.process.kill()
    made.process.wait()


def shown(view: StackView) -> str:
    text = StringIO()
    print_processes(view, Console(file=text, width=200))
    return text.getvalue()


def test_a_process_that_answers_is_up(gateway: Gateway) -> None:
    assert gateway.seen().headline == "up"
    assert gateway.seen().problems() == []


def test_status_says_what_a_process_waits_for_before_it_is_started_again(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.config.write_text(StackConfig(data_dir=tmp_path).model_dump_json())
    kafka = ProcessStatus(name="kafka", pid=None, deaths=7, log=tmp_path / "kafka.log", waits_for=DISK_FULL)
    state = StackState(phase="up", processes=[kafka])
    assert "the disk is full; it goes on when there is room" in str(
        StackView(state, health_of(folder, state)).problems()
    )


def test_a_stopped_process_is_not_up_and_status_says_how_it_goes_on(gateway: Gateway) -> None:
    os.kill(gateway.process.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(gateway.process.pid).status() == psutil.STATUS_STOPPED)
    view = gateway.seen()
    assert view.headline == "not all up: gateway is stopped"
    assert f"kill -CONT {gateway.process.pid}" in view.problems()[0].what
    assert "not all up" in shown(view)
    os.kill(gateway.process.pid, signal.SIGCONT)
    wait_until(lambda: gateway.seen().headline == "up")


def test_a_process_that_is_gone_is_not_running(gateway: Gateway) -> None:
    gateway.process.kill()
    gateway.process.wait()
    assert gateway.seen().headline == "not all up: gateway is not running"


@pytest.mark.parametrize("gateway", [503], indirect=True)
def test_a_service_that_is_not_ready_says_why(gateway: Gateway) -> None:
    (health,) = gateway.seen().processes
    assert (health.state, health.why) == ("not ready", "no replica serves policy")
    assert str(health.log) in gateway.seen().problems()[0].do


def test_without_a_stack_status_says_how_to_start_one() -> None:
    assert "No stack was started here." in shown(StackView())
    assert "up`" in shown(StackView())
    down = StackView(StackState(phase="down"))
    assert "The stack is down." in shown(down)
