"""Limits that a worker process sets on itself (Linux), so that nothing has to run between fork and exec."""

import ctypes
import os
import resource
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1
CPU_SPARE_S = 5


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when process `parent` ends: no one else could stop an endless loop then."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def limit_memory(megabytes: int) -> None:
    """Limit address space to `megabytes` more than now. Exceeding it raises MemoryError or ends the process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    held = pages * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = held + megabytes * 1024 * 1024
    # The hard limit is unchanged, because a grader's subprocess may be given more than the worker itself.
    resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_cpu(seconds: float) -> None:
    """Limit CPU time to `seconds` more than used so far: a second safeguard after the service's timeout."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + CPU_SPARE_S
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))
