"""Checks a run file before anything is started. Each service checks its own section, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from leyden.stack.errors import StackError

SERVICES = ("reward", "credit", "trainer", "policy")
"""Those with a section."""
VALID, INVALID = 0, 1
TIMEOUT_S = 120.0


def run_file_problems(path: Path, env: dict[str, str]) -> list[str]:
    """What is wrong, each with file, line, field and value; empty if nothing is. `env`: the services' environment.

    Reward functions are imported: one that does not exist is a problem. Raises StackError if a check cannot run.
    """
    services = _with_a_section(path)
    with ThreadPoolExecutor(len(services)) as pool:
        found = pool.map(lambda service: _check(service, path.resolve(), env), services)
        return sorted(dict.fromkeys(line for lines in found for line in lines), key=_line)


def _with_a_section(path: Path) -> Sequence[str]:
    """The services to ask: those with a section in the file, or one, which says what is wrong with the whole."""
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return SERVICES[:1]
    found = [service for service in SERVICES if isinstance(document, dict) and service in document]
    return found or SERVICES[:1]


def _line(problem: str) -> int:
    """The line that a problem names."""
    number = problem.removeprefix(problem.partition(":")[0] + ":").partition(":")[0]
    return int(number) if number.isdigit() else 0


def _check(service: str, path: Path, env: dict[str, str]) -> list[str]:
    command = [sys.executable, "-m", f"leyden.{service}", "--check-run-file", str(path)]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if done.returncode == VALID:
        return []
    if done.returncode == INVALID and done.stdout.strip():
        return done.stdout.strip().splitlines()
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    raise StackError(f"{path} could not be checked by leyden.{service}: {last}")
