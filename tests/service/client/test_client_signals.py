"""A runner's process: SIGTERM lets what is running end."""

import os
import signal
import subprocess
import sys
import time

from client_support import KEY, FakeGateway, wait_until

PROGRAM = """
import sys, time, leyden

def agent(claim):
    time.sleep(1.0)
    return 1.0

leyden.Runner(agent, sys.argv[1], sys.argv[2], concurrency=2, wait_s=0.3).run()
print("left in peace")
"""


def test_sigterm_ends_a_runner_after_its_running_agents(gateway: FakeGateway) -> None:
    traces = gateway.enqueue(2)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runner = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, gateway.url, KEY], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: not gateway.queue, 30)
        time.sleep(0.2)
        runner.send_signal(signal.SIGTERM)
        output, _ = runner.communicate(timeout=30)
    finally:
        runner.kill()
        runner.wait()
    assert (output.strip(), runner.returncode) == ("left in peace", 0)
    assert [gateway.ends[trace][0]["reward"] for trace in traces] == [1.0, 1.0]
