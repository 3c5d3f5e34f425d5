"""A process's own limits (Linux): it sets them on itself, so that no library of the service has to be fork-safe."""

import ctypes
import os
import resource
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1
CPU_SPARE_S = 5


def die_with_parent(parent: int) -> None:
    """Be killed when the process `parent` ends, however it ends: nobody is left to end an endless loop."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def limit_memory(megabytes: int) -> None:
    """At most so much address space more than now; asking for more raises MemoryError, or ends the process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    held = pages * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = held + megabytes * 1024 * 1024
    # The hard limit stays: a grader's own process may be given more than the worker itself.
    resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_cpu(seconds: float) -> None:
    """At most so much processor time more than was used; a second line behind the service's clock."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + CPU_SPARE_S
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
