"""Whether each process of a local stack works: its process state, and the answer of its readiness route."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil

from leyden.stack.config import SERVICES, StackConfig
from leyden.stack.probes import kafka_probe, redis_probe
from leyden.stack.state import DataFolder, ProcessStatus, StackState

TIMEOUT_S = 2.0
UP = "up"
NO_ANSWER = "it does not answer"


@dataclass(frozen=True)
class ProcessHealth:
    """One process of a stack."""

    name: str
    state: str
    """`up`, `stopped`, `not running`, or `not ready`."""
    why: str
    """One sentence if it is not up, else empty."""
    pid: int | None
    restarts: int
    log: str


def health_of(folder: DataFolder, state: StackState) -> list[ProcessHealth]:
    """The health of every process, in the order of their start. Takes `TIMEOUT_S` at most."""
    if not state.processes:
        return []
    config = StackConfig.model_validate_json(folder.config.read_text())
    with ThreadPoolExecutor(len(state.processes)) as pool:
        return list(pool.map(lambda process: _health(process, _check_of(config, process.name)), state.processes))


def _check_of(config: StackConfig, name: str) -> Callable[[], str]:
    """What says why the process is not ready: empty if it is, or if that cannot be asked."""
    ports = config.ports
    match name:
        case "kafka":
            return lambda: "" if kafka_probe(ports.kafka)() else NO_ANSWER
        case "redis":
            return lambda: "" if redis_probe(ports.redis)() else NO_ANSWER
        case "engine":
            return lambda: _not_ready(f"http://127.0.0.1:{ports.engine}/health")
        case _ if name in SERVICES:
            return lambda: _not_ready(f"http://127.0.0.1:{ports.ops[SERVICES.index(name)]}/readyz")
        case _:
            return lambda: ""


def _health(process: ProcessStatus, check: Callable[[], str]) -> ProcessHealth:
    state, why = _process_state(process.pid)
    if process.pid is None and process.waits_for:
        why = process.waits_for
    if state == UP and (reason := check()):
        state, why = "not ready", reason
    return ProcessHealth(process.name, state, why, process.pid, process.deaths, str(process.log))


def _process_state(pid: int | None) -> tuple[str, str]:
    if pid is None:
        return "not running", "it ended and is being restarted"
    try:
        status = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return "not running", "its process is gone"
    if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
        return "stopped", f"it was stopped by a signal; `kill -CONT {pid}` continues it"
    if status == psutil.STATUS_ZOMBIE:
        return "not running", "it has ended"
    return UP, ""


def _not_ready(url: str) -> str:
    """Why the process is not ready; empty if it is."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S):  # noqa: S310 - our own http URL
            return ""
    except urllib.error.HTTPError as error:
        try:
            return str(json.loads(error.read())["reason"])
        except (ValueError, KeyError, TypeError, OSError):
            return f"it answers {error.code}"
    except (OSError, ValueError):
        return NO_ANSWER
