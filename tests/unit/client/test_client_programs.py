"""Programs as agents: what their end means, what is kept of their output, and that nothing of them is left."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from leyden.client.errors import ConfigurationError
from leyden.client.executors import Command, outcome_of
from leyden.client.processes import MAX_OUTPUT, Output, ProgramEnd, running

ENV = {"PATH": os.environ["PATH"]}


def test_a_json_object_on_the_last_line_is_the_output() -> None:
    outcome = outcome_of(ProgramEnd(0, 'thinking\n{"answer": 4, "score": 0.5}\n', ""), "score")
    assert (outcome.status, outcome.output, outcome.reward) == ("succeeded", {"answer": 4, "score": 0.5}, 0.5)


def test_any_other_output_is_text() -> None:
    assert outcome_of(ProgramEnd(0, "four\n", "")).output == "four"
    assert outcome_of(ProgramEnd(0, "", "")).output is None


@pytest.mark.parametrize(
    ("stdout", "path", "reward"),
    [
        ("0.25", ".", 0.25),
        ('{"a": {"b": 1}}', "a.b", 1.0),
        ('{"a": true}', "a", 1.0),
        ('{"a": "1"}', "a", None),
        ('{"a": NaN}', "a", None),
        ("no json", "a", None),
        ("[1]", "a", None),
    ],
)
def test_a_reward_is_read_where_it_was_said_to_be(stdout: str, path: str, reward: float | None) -> None:
    outcome = outcome_of(ProgramEnd(0, stdout, ""), path)
    assert (outcome.status, outcome.reward) == ("succeeded", reward)


def test_a_failure_tells_its_exit_code_and_its_last_words() -> None:
    trace = "Traceback (most recent call last):\n  …\npage.NotFoundError: 404"
    outcome = outcome_of(ProgramEnd(1, "", trace))
    assert (outcome.failure_class, outcome.error_type) == ("agent_exception", "page.NotFoundError")
    assert outcome.message.startswith("the program ended with exit code 1")
    assert outcome.message.endswith("404")
    assert outcome_of(ProgramEnd(-11, "", "")).error_type == "signal_11"


def test_what_the_program_is_not_to_blame_for_is_infrastructure() -> None:
    assert outcome_of(ProgramEnd(-9, "", "")).failure_class == "infrastructure"
    assert outcome_of(ProgramEnd(1, "", ""), stopped_by=signal.SIGTERM).failure_class == "infrastructure"


def test_a_command_is_split_as_a_shell_would_and_named_after_its_script() -> None:
    assert Command.parse("python -u agents/my_agent.py --x 'a b'").argv == (
        "python", "-u", "agents/my_agent.py", "--x", "a b",
    )  # fmt: skip
    assert Command.parse("python -u agents/my_agent.py").__name__ == "my_agent"
    assert Command.parse("/usr/bin/agent --fast").__name__ == "agent"
    with pytest.raises(ConfigurationError):
        Command.parse(" ")


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
