"""Checks that this machine can run the stack; each problem comes with a remedy. Changes nothing.

Uses only the standard library, and syntax that Python 3.8 can parse, so that it runs before anything is installed:
`python3 workbench/leyden/stack/preflight.py`.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

GIB = 2**30
MINIMUM_PYTHON = (3, 11)
DEMO_MEMORY_GIB = 6.0
DEMO_DISK_GIB = 4.0


@dataclass(frozen=True)
class Problem:
    """Something that prevents the start, and what to do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}"


@dataclass(frozen=True)
class Needs:
    """Requirements of a stack.

    `ports` maps purposes to port numbers; `fetch` lists what must be downloaded; `programs` maps programs that must be
    on PATH to a sentence that says why and what to do without them.
    """

    memory_gib: float = DEMO_MEMORY_GIB
    disk_gib: float = DEMO_DISK_GIB
    folders: Sequence[Path] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    fetch: Sequence[str] = ()
    programs: Mapping[str, str] = field(default_factory=dict)


class Machine(Protocol):
    """The facts that `check` needs."""

    def python(self) -> tuple[int, int]: ...
    def system(self) -> tuple[str, str]: ...
    def free_memory(self) -> int: ...
    def free_disk(self, folder: Path) -> int: ...
    def port_is_free(self, port: int) -> bool: ...
    def has_network(self) -> bool: ...
    def has_program(self, name: str) -> bool: ...


class ThisMachine:
    """The machine of this process."""

    def python(self) -> tuple[int, int]:
        return sys.version_info[0], sys.version_info[1]

    def system(self) -> tuple[str, str]:
        return platform.system(), platform.machine()

    def free_memory(self) -> int:
        """Available memory in bytes, within this process's cgroup limit."""
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        limit, used = _cgroup("memory.max"), _cgroup("memory.current")
        return available if limit is None or used is None else min(available, max(0, limit - used))

    def free_disk(self, folder: Path) -> int:
        existing = next(part for part in (folder, *folder.parents) if part.exists())
        return shutil.disk_usage(existing).free

    def port_is_free(self, port: int) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True

    def has_program(self, name: str) -> bool:
        return shutil.which(name) is not None

    def has_network(self) -> bool:
        """Whether there is a default route or a proxy. Whether it works shows when something is fetched."""
        if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
            return True
        return _has_default_route(Path("/proc/net/route"), 1, "00000000") or _has_default_route(
            Path("/proc/net/ipv6_route"), 0, "0" * 32
        )


def _cgroup(name: str) -> int | None:
    path = Path("/sys/fs/cgroup") / name
    text = path.read_text().strip() if path.exists() else "max"
    return int(text) if text.isdigit() else None


def _has_default_route(table: Path, column: int, destination: str) -> bool:
    if not table.exists():
        return False
    rows = [line.split() for line in table.read_text().splitlines()]
    return any(row[column] == destination and row[-1] != "lo" for row in rows if len(row) > column)


def check(needs: Needs, machine: Machine | None = None) -> list[Problem]:
    """The problems of `machine` with `needs`; empty if it is ready.

    A wrong platform or Python is reported alone, as it causes other problems.
    """
    here: Machine = machine or ThisMachine()
    first = _platform(here) + _python(here)
    if first:
        return first
    programs = [
        Problem(f"The program {name} is not on PATH.", remedy)
        for name, remedy in needs.programs.items()
        if not here.has_program(name)
    ]
    return programs + _memory(needs, here) + _disk(needs, here) + _ports(needs, here) + _network(needs, here)


def _platform(machine: Machine) -> list[Problem]:
    system, processor = machine.system()
    if system == "Linux" and processor.lower() in ("x86_64", "amd64"):
        return []
    return [
        Problem(
            f"The local stack needs Linux on x86-64; this machine has {system} on {processor}.",
            "Use such a machine, a virtual machine or WSL 2, or the images of docker-compose.yml.",
        )
    ]


def _python(machine: Machine) -> list[Problem]:
    found = machine.python()
    if found >= MINIMUM_PYTHON:
        return []
    return [
        Problem(
            f"Leyden needs Python {_dotted(MINIMUM_PYTHON)} or newer; this is {_dotted(found)}.",
            f"Name a newer one, for example `make demo PYTHON=python{_dotted(MINIMUM_PYTHON)}`.",
        )
    ]


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _memory(needs: Needs, machine: Machine) -> list[Problem]:
    free = machine.free_memory() / GIB
    if free >= needs.memory_gib:
        return []
    return [
        Problem(
            f"The stack needs about {needs.memory_gib:.1f} GiB of free memory; {free:.1f} GiB are free.",
            "Close other programs, choose a smaller model, or use a larger machine.",
        )
    ]


def _disk(needs: Needs, machine: Machine) -> list[Problem]:
    short = {folder: machine.free_disk(folder) / GIB for folder in needs.folders}
    return [
        Problem(
            f"The stack needs about {needs.disk_gib:.1f} GiB of disk under {folder}; {free:.1f} GiB are free.",
            "Free some space, or choose other folders with LEYDEN_CACHE and --data-dir.",
        )
        for folder, free in short.items()
        if free < needs.disk_gib
    ]


def _ports(needs: Needs, machine: Machine) -> list[Problem]:
    taken = {what: port for what, port in needs.ports.items() if port and not machine.port_is_free(port)}
    return [
        Problem(
            f"Port {port}, for {what}, is in use.",
            "Stop the program that uses it (`leyden down` stops an earlier stack), or start with --auto-ports.",
        )
        for what, port in taken.items()
    ]


def _network(needs: Needs, machine: Machine) -> list[Problem]:
    if not needs.fetch or machine.has_network():
        return []
    return [
        Problem(
            f"There is no network, and {' and '.join(needs.fetch)} must be downloaded.",
            "Connect this machine, or set LEYDEN_CACHE to a copy of a filled cache.",
        )
    ]


def main() -> int:
    """Check this machine for the demo and print the problems; the exit status is their number."""
    problems = check(Needs(folders=(Path.cwd(),)))
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return len(problems)


if __name__ == "__main__":
    raise SystemExit(main())
