"""Programs as agents: what passes through and is kept of their output, and that nothing of them is left."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from leyden.client.processes import MAX_OUTPUT, Output, ProgramEnd, running

ENV = {"PATH": os.environ["PATH"]}


async def run(script: str, stdin: bytes | None = b"") -> tuple[ProgramEnd, bytes, bytes]:
    out, err = bytearray(), bytearray()
    async with running(["sh", "-c", script], ENV, stdin, Output(out.extend, err.extend)) as program:
        end = await program.wait()
    return end, bytes(out), bytes(err)


async def test_streams_pass_through_and_their_ends_are_kept() -> None:
    end, out, err = await run("cat; echo oops >&2; exit 3", b"question")
    assert (end.returncode, end.stdout, end.stderr, out, err) == (3, "question", "oops\n", b"question", b"oops\n")


async def test_long_output_passes_whole_and_is_kept_in_part() -> None:
    end, out, _ = await run(r"head -c 1000000 /dev/zero | tr '\0' x; echo end")
    assert len(out) == 1_000_004
    assert len(end.stdout) == MAX_OUTPUT
    assert end.stdout.endswith("end\n")


async def test_a_program_that_reads_no_input_is_fine() -> None:
    end, _, _ = await run("exit 0", b"x" * 1_000_000)
    assert end.returncode == 0


async def test_bytes_that_are_no_text_are_marked() -> None:
    end, out, _ = await run(r"printf '\377'")
    assert (out, end.stdout) == (b"\xff", "�")


async def test_a_cancelled_program_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $$ $! > {pids}; wait; sleep 60"
    task = asyncio.create_task(run(script))
    while not (pids.exists() and pids.read_text().strip()):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for pid in map(int, pids.read_text().split()):
        assert not alive(pid)


async def test_a_child_that_outlives_the_program_is_ended_and_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    end, _, _ = await run(f"sleep 600 & echo $! > {pid}; echo done")
    assert end.stdout == "done\n"
    assert not alive(int(pid.read_text()))


async def test_a_signal_is_passed_on() -> None:
    ready = asyncio.Event()
    script = ["sh", "-c", "trap 'echo got; exit 5' INT; echo ready; while :; do sleep 0.05; done"]
    async with running(script, ENV, b"", Output(out=lambda data: ready.set())) as program:
        await ready.wait()
        program.child.signal(signal.SIGINT)
        end = await program.wait()
    assert (end.returncode, end.stdout) == (5, "ready\ngot\n")


def alive(pid: int) -> bool:
    """Whether it runs; one that nobody has reaped yet does not."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.02)
    return True
