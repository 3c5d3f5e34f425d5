"""Reward functions, well behaved and not, that worker processes load by name."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from leyden.reward.functions import RolloutView


def begun(marker: Path) -> None:
    """Write into `marker` which process this is."""
    marker.with_suffix(".new").write_text(str(os.getpid()))
    marker.with_suffix(".new").rename(marker)


def length(view: RolloutView) -> float:
    return float(len(str(view.output)))


def named(view: RolloutView) -> dict[str, float | None]:
    return {"b": 2, "a": 1.5, "nothing": None}


def nothing(view: RolloutView) -> None:
    print("what a function prints is no answer")


async def later(view: RolloutView) -> float:
    await asyncio.sleep(0.3)
    return length(view)


async def never(view: RolloutView) -> float:
    if view.output == "never":
        await asyncio.sleep(1000)
    return length(view)


def many(views: list[RolloutView]) -> list[float]:
    return [length(view) for view in views]


async def many_later(views: list[RolloutView]) -> list[float | None]:
    await asyncio.sleep(0.01)
    return [None if view.output == "none" else length(view) for view in views]


def too_few(views: list[RolloutView]) -> list[float]:
    return [1.0]


def as_told(view: RolloutView) -> Any:
    """Does what the output says, so that one function shows every way to break."""
    match view.output:
        case "pid":
            return float(os.getpid())
        case "loop":
            while True:
                pass
        case "sleep":
            time.sleep(1000)
        case "memory":
            return len(bytearray(4 << 30))
        case "exit":
            os._exit(0)
        case "sys.exit":
            raise SystemExit(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill group":
            os.killpg(0, signal.SIGKILL)
        case "raise":
            raise RuntimeError("the judge is away")
        case "nan":
            return float("nan")
        case "text":
            return "1"
        case "list":
            return [1.0]
        case "huge":
            return 10**400
        case "surrogate":
            raise RuntimeError("half a pair: \ud800")
        case "fork":
            os.fork()
            return 3.0
    return length(view)


def fails_once(view: RolloutView) -> float:
    """Fails the first time that it sees its marker file missing."""
    marker = Path(str(view.output))
    if not marker.exists():
        marker.touch()
        raise ConnectionError("the first time")
    return 1.0


def waits_once(view: RolloutView) -> float:
    """Takes for ever the first time that it sees its marker file missing."""
    marker = Path(str(view.output))
    if not marker.exists():
        begun(marker)
        time.sleep(1000)
    return 1.0


def loops(view: RolloutView) -> float:
    """Never returns; the output is the marker file that says it has begun."""
    begun(Path(str(view.output)))
    while True:
        pass


def pid(view: RolloutView) -> float:
    return float(os.getpid())


def leaves_a_daemon(view: RolloutView) -> float:
    """Starts a process that leaves the session and ignores polite signals, as daemons do."""
    marker = Path(str(view.output))
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            begun(marker)
            time.sleep(1000)
        os._exit(0)
    while not marker.exists():
        time.sleep(0.01)
    return 1.0


def leaves_a_daemon_and_stays(view: RolloutView) -> float:
    leaves_a_daemon(view)
    time.sleep(1000)
    return 1.0


def leaves_a_daemon_and_breaks(view: RolloutView) -> Any:
    assert isinstance(view.output, list)
    leaves_a_daemon(replace(view, output=view.output[0]))
    return as_told(replace(view, output=view.output[1]))


def is_in_its_keepers_group(view: RolloutView) -> float:
    return float(os.getpgrp() == os.getpgid(os.getppid()))


def searches_every_process(view: RolloutView) -> float:
    """In how many places the reversed text is: environments and command lines of processes, the own environment."""
    secret = str(view.output)[::-1]
    found = float(secret in os.environ.values())
    for process in Path("/proc").iterdir():
        for name in ("environ", "cmdline"):
            try:
                found += secret.encode() in (process / name).read_bytes()
            except OSError:
                continue
    return found


def signals(view: RolloutView) -> float:
    os.kill(int(str(view.output)), 0)
    return 1.0


def changes(view: RolloutView) -> float:
    """Tries to change a file, or what is beside it."""
    assert isinstance(view.output, list)
    way, kept = str(view.output[0]), Path(str(view.output[1]))
    beside = kept.with_name("beside")
    match way:
        case "write":
            kept.write_text("changed")
        case "append":
            kept.open("a").close()
        case "truncate":
            os.truncate(kept, 0)
        case "create":
            beside.touch()
        case "remove":
            kept.unlink()
        case "rename":
            kept.rename(beside)
        case "link":
            beside.symlink_to(kept)
        case "mkdir":
            beside.mkdir()
        case _:
            subprocess.run(["sh", "-c", f"echo > {kept}"], check=True)
    return 1.0


def shares_work(view: RolloutView) -> float:
    """With two more processes."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return float(sum(pool.map(abs, [-1, -2])))


def uses_its_folder(view: RolloutView) -> float:
    with tempfile.NamedTemporaryFile() as file:
        folder = Path(file.name).parent
    (Path.home() / ".cache").mkdir()
    subprocess.run(["true"], stdout=subprocess.DEVNULL, check=True)
    return float(Path.home() == folder)
