"""Permanently restricts the process that runs an answer's code. Linux; standard library only.

Memory, CPU time and files are always limited. If the kernel has seccomp, the process cannot start processes, send
signals or open sockets; if it has Landlock, it cannot write outside its folder. This protects against accidents and
simple tricks, not against an attacker: the code can still read whatever the service's user can read.
"""

import ctypes
import os
import resource
from collections.abc import Sequence

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22
FILE_BYTES = 8 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


def confine(cpu_s: float, memory_mb: int, folder: str) -> None:
    """Apply all restrictions to this process."""
    cpu, memory = max(1, int(cpu_s)), memory_mb << 20
    for what, soft, hard in (
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_FSIZE, FILE_BYTES, FILE_BYTES),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        most = resource.getrlimit(what)[1]
        resource.setrlimit(what, (soft, hard) if most == resource.RLIM_INFINITY else (min(soft, most), min(hard, most)))
    drop_capabilities()
    write_only_in([folder])
    forbid_calls()


PR_CAPBSET_DROP, CAPABILITIES_VERSION, CAPABILITIES = 24, 0x20080522, 64


def drop_capabilities() -> None:
    """Give up root's powers for good, also over processes that hide their memory. No-op for other users."""
    for capability in range(CAPABILITIES):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    LIBC.capset(ctypes.byref(header), ctypes.byref(none))


LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
"""System call numbers, the same on all architectures."""
WRITING = 1 << 1 | sum(1 << bit for bit in range(4, 13))
"""Access rights: writing files, removing and creating anything."""
MOVING, TRUNCATING = 1 << 13, 1 << 14
"""Exist since versions 2 and 3 of the ABI. Moving is between folders; without the right it is never allowed."""
OF_FILES = 1 << 1 | TRUNCATING
SCOPES_SINCE, SCOPES = 6, 1 | 2
"""Abstract sockets and signals reach no process outside."""


class PathRule(ctypes.Structure):
    """`struct landlock_path_beneath_attr`."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def write_only_in(folders: Sequence[str]) -> None:
    """Allow this process and its children to write, create and remove files only in `folders`.

    They can also not trace processes outside, nor read their memory and environment, nor (since version 6 of the ABI)
    send them signals. Has no effect on kernels without Landlock.
    """
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    version = LIBC.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return
    handled = WRITING | (MOVING if version >= 2 else 0) | (TRUNCATING if version >= 3 else 0)
    attributes = (ctypes.c_uint64 * 3)(handled, 0, SCOPES)
    size = ctypes.sizeof(attributes) if version >= SCOPES_SINCE else ctypes.sizeof(ctypes.c_uint64)
    rules = LIBC.syscall(LANDLOCK_CREATE, ctypes.byref(attributes), size, 0)
    for path, rights in (*((folder, handled) for folder in folders), (os.devnull, handled & OF_FILES)):
        here = os.open(path, os.O_PATH)
        LIBC.syscall(LANDLOCK_ADD, rules, 1, ctypes.byref(PathRule(rights, here)), 0)
        os.close(here)
    LIBC.syscall(LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


MACHINES = {
    "x86_64": (0xC000003E, 56, (41, 53, 57, 58, 59, 62, 101, 129, 200, 234, 297, 302, 310, 311, 322, 424, 425)),
    "aarch64": (0xC00000B7, 220, (117, 129, 130, 131, 138, 198, 199, 221, 240, 261, 270, 271, 281, 424, 425)),
}
"""By machine: its audit architecture, the number of clone, and the system calls that start processes, signal, trace or
limit others, open sockets, or bypass this list (io_uring)."""
CLONE3 = 435
LOAD, EQUAL, AT_LEAST, SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, DENIED, NO_SUCH_CALL, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
CLONE_THREAD = 0x10000
X32_CALLS = 0x40000000
SECCOMP_MODE_FILTER = 2


class Instruction(ctypes.Structure):
    """`struct sock_filter`."""

    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction)))


def forbid_calls() -> None:
    """Install a seccomp filter: allows threads; processes, signals and sockets get EPERM. No-op without seccomp."""
    if (machine := MACHINES.get(os.uname().machine)) is None:
        return
    architecture, clone, calls = machine
    steps = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    steps += [(AT_LEAST, 0, 1, X32_CALLS), (RETURN, 0, 0, DENIED)]
    # clone3 has its flags behind a pointer, where the filter cannot see them; libc falls back to clone on ENOSYS.
    steps += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, NO_SUCH_CALL)]
    for call in calls:
        steps += [(EQUAL, 0, 1, call), (RETURN, 0, 0, DENIED)]
    steps += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, 16), (SET, 1, 0, CLONE_THREAD), (RETURN, 0, 0, DENIED)]
    steps += [(RETURN, 0, 0, ALLOW)]
    program = Program(len(steps), (Instruction * len(steps))(*(Instruction(*step) for step in steps)))
    LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
