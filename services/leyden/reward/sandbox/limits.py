"""Limits that a worker process sets on itself (Linux), so that nothing has to run between fork and exec."""

import ctypes
import resource
from pathlib import Path

PR_SET_DUMPABLE = 4
CPU_SPARE_S = 5


def hide_memory() -> None:
    """Let no process read this one's memory and environment, unless it has root's capabilities."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0)


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
