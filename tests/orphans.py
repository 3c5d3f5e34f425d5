"""Ends whatever a run of the suite started, however the run ends, kill -9 included.

Every process that tests start inherits the launcher's mark in its environment; the launcher's watchdog waits for the
end of the pytest process and kills those that have it. Stacks that tests start have watchdogs of their own.
"""

import os
import subprocess
import sys

from leyden.stack import sweep

Watchdog = subprocess.Popen[bytes]


def watch() -> Watchdog:
    """Start the watchdog; it ends with this process, or when its standard input is closed."""
    mark = f"tests-{os.getpid()}"
    os.environ[sweep.MARKER] = mark
    return subprocess.Popen(
        [sys.executable, "-I", "-S", sweep.__file__, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
