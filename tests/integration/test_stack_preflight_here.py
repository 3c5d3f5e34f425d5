"""The checks of a machine, run on this one."""

import socket
import subprocess
import sys

from leyden.stack import preflight
from leyden.stack.preflight import ThisMachine


def test_a_port_that_is_listened_on_is_taken() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not ThisMachine().port_is_free(port)
    assert ThisMachine().port_is_free(port)


def test_it_runs_before_anything_is_installed() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", preflight.__file__], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == len(done.stderr.splitlines())
