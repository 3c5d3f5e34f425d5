"""Agents that other processes import: their module must be found there by name."""

import asyncio
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import leyden
from leyden.client import Claim


def in_another_process(number: int) -> str:
    """Work of a pool's process inside the rollout that it was carried from."""
    leyden.emit_reward(number)
    with leyden.operation(f"work {number}"):
        return leyden.current_rollout().trace_id


def by_environment(claim: Claim) -> dict[str, object]:
    """An agent that knows its model from the environment alone."""
    leyden.emit_reward(0.5)
    assert leyden.current_rollout() == claim
    return {"base_url": os.environ["OPENAI_BASE_URL"], "key": os.environ["OPENAI_API_KEY"], "pid": os.getpid()}


async def asynchronous(claim: Claim) -> float:
    """An `async def` agent."""
    await asyncio.sleep(0)
    leyden.emit_reward(1.0, "style")
    return 1.0


def as_told(claim: Claim) -> object:
    """Does what its task says, the bad included; leaves the pids of all that it started in a file."""
    match claim.input["do"]:
        case "hang" | "hang holding the interpreter":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen(["sleep", "100"])
            Path(claim.input["pids"]).write_text(f"{os.getpid()} {child.pid}\n")
            while claim.input["do"] == "hang":
                time.sleep(0.1)
            re.match("(a|a)*b", "a" * 100)  # one call that takes for ever, and lets no thread run
        case "raise":
            raise KeyError("page")
        case "exit":
            os._exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    return 1.0
