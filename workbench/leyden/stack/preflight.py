"""Is this machine ready? One sentence and one remedy for each thing that is not. Starts, writes and fetches nothing.

Stands alone on the standard library and on old Pythons (3.8 parses it), so that it can also run before
anything is installed: `python3 workbench/leyden/stack/preflight.py`.
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
    """Something that stops the stack from starting, and what to do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}"


@dataclass(frozen=True)
class Needs:
    """What a stack asks of the machine.

    `ports` maps a port's purpose to its number; `fetch` names what is not in the cache yet; `programs` maps a program
    that must be on PATH to the sentence that says what for and what to do without it.
    """

    memory_gib: float = DEMO_MEMORY_GIB
    disk_gib: float = DEMO_DISK_GIB
    folders: Sequence[Path] = ()
    ports: Mapping[str, int] = field(default_factory=dict)
    fetch: Sequence[str] = ()
    programs: Mapping[str, str] = field(default_factory=dict)


class Machine(Protocol):
    """The facts that `check` asks for."""

    def python(self) -> tuple[int, int]: ...
    def system(self) -> tuple[str, str]: ...
    def free_memory(self) -> int: ...
    def free_disk(self, folder: Path) -> int: ...
    def port_is_free(self, port: int) -> bool: ...
    def has_network(self) -> bool: ...
    def has_program(self, name: str) -> bool: ...


class ThisMachine:
    """The machine that the process runs on."""

    def python(self) -> tuple[int, int]:
        return sys.version_info[0], sys.version_info[1]

    def system(self) -> tuple[str, str]:
        return platform.system(), platform.machine()

    def free_memory(self) -> int:
        """Bytes that may be used: what the kernel calls available, within this process's cgroup limit."""
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
        """Whether a way out exists (a default route or a proxy); whether it leads anywhere shows when fetching."""
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
    """Everything about `machine` that stands in the way of `needs`; empty when it is ready.

    A wrong platform or Python is reported alone: what follows from it would only mislead.
    """
    here: Machine = machine or ThisMachine()
    first = _platform(here) + _python(here)
    if first:
        return first
    programs = [
        Problem(f"There is no program {name} on PATH.", remedy)
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
            f"The local stack runs on Linux on x86-64, and this is {system} on {processor}.",
            "Use a Linux x86-64 machine or virtual machine (WSL 2 will do), or the images of docker-compose.yml.",
        )
    ]


def _python(machine: Machine) -> list[Problem]:
    found = machine.python()
    if found >= MINIMUM_PYTHON:
        return []
    return [
        Problem(
            f"Leyden needs Python {_dotted(MINIMUM_PYTHON)} or newer, and this is {_dotted(found)}.",
            f"Run it with a newer one, for example `make demo PYTHON=python{_dotted(MINIMUM_PYTHON)}`.",
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
            f"The stack needs about {needs.memory_gib:.1f} GiB of free memory, and {free:.1f} GiB are free.",
            "Close other programs, use a larger machine, or choose a smaller model.",
        )
    ]


def _disk(needs: Needs, machine: Machine) -> list[Problem]:
    short = {folder: machine.free_disk(folder) / GIB for folder in needs.folders}
    return [
        Problem(
            f"The stack needs about {needs.disk_gib:.1f} GiB of disk under {folder}, and {free:.1f} GiB are free.",
            "Free some space, or choose other folders with LEYDEN_CACHE and LEYDEN_DATA_DIR.",
        )
        for folder, free in short.items()
        if free < needs.disk_gib
    ]


def _ports(needs: Needs, machine: Machine) -> list[Problem]:
    taken = {what: port for what, port in needs.ports.items() if port and not machine.port_is_free(port)}
    return [
        Problem(
            f"Port {port}, meant for {what}, is taken.",
            "Stop the program that listens there (the command `down` stops an earlier stack), or choose another port.",
        )
        for what, port in taken.items()
    ]


def _network(needs: Needs, machine: Machine) -> list[Problem]:
    if not needs.fetch or machine.has_network():
        return []
    return [
        Problem(
            f"There is no network, and {' and '.join(needs.fetch)} must still be fetched.",
            "Connect this machine once, or point LEYDEN_CACHE at a copy of a filled cache.",
        )
    ]


def main() -> int:
    """Check this machine for the demo, print what is wrong; the exit status is the number of problems."""
    problems = check(Needs(folders=(Path.cwd(),)))
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return len(problems)


if __name__ == "__main__":
    raise SystemExit(main())
