"""Ways to run an agent: on the runner's event loop, in a thread, in a process, or as a program.

An executor is a context manager around one run. Cancelling the run stops the agent, except in a thread, which cannot be
stopped from outside: it keeps running, and its further calls belong to an attempt that has ended.
"""

import asyncio
import contextvars
import json
import math
import os
import re
import shlex
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from leyden.client.attempts import OpenAttempt
from leyden.client.claims import Claim, SpanCounts, environment_of, input_text, span_counts, traceparent_of
from leyden.client.errors import ConfigurationError
from leyden.client.outcomes import (
    MAX_OUTPUT_TAIL,
    Outcome,
    call,
    call_async,
    infrastructure_failed,
    is_async,
    process_failed,
    stopped,
)
from leyden.client.processes import AgentProcesses, Output, ProgramEnd, in_thread, running

T = TypeVar("T")
Mode = Literal["auto", "async", "thread", "process"]

CANCEL_S = 5.0
"""Time for a cancelled agent to clean up."""
_RAISED = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning))(?::|$)")
"""The last line of a Python traceback."""


@dataclass(frozen=True)
class Run:
    """One run of an agent."""

    outcome: Awaitable[Outcome]
    """Run the agent; await it once."""
    output_tail: Callable[[], str] = lambda: ""
    """The end of the agent's output, if it is captured."""
    other_spans: Callable[[], int | None] = lambda: 0
    """Number of spans that other processes sent for the attempt; None if unknown."""


Executor = Callable[[OpenAttempt], AbstractContextManager[Run]]


@dataclass(frozen=True)
class Command:
    """A program as an agent. `reward_from` is the key of the reward in the JSON of the last line of its output."""

    argv: Sequence[str]
    reward_from: str | None = None

    @classmethod
    def parse(cls, line: str, reward_from: str | None = None) -> "Command":
        """Split as a shell would. Raises `ConfigurationError` for an empty command."""
        argv = shlex.split(line)
        if not argv:
            raise ConfigurationError("the command is empty")
        return cls(tuple(argv), reward_from)

    @property
    def __name__(self) -> str:
        """The agent's name: the script's, else the program's."""
        words = [os.path.basename(word) for word in self.argv]  # noqa: PTH119 - a name, not a path
        named = next((word for word in words[1:] if not word.startswith("-")), words[0])
        return named.rsplit(".", 1)[0] if named.endswith((".py", ".js", ".ts", ".sh")) else words[0]


def executor_of(agent: Any, mode: Mode) -> Executor:
    """The executor of `agent` in `mode`. Raises `ConfigurationError` if the agent cannot run in that mode."""
    if isinstance(agent, Command):
        return lambda attempt: _program(agent, attempt)
    if mode == "process":
        processes = AgentProcesses(agent)
        return lambda attempt: _process(processes, attempt)
    if mode == "async" and not is_async(agent):
        raise ConfigurationError(f"mode='async' needs an `async def` agent, not {agent!r}")
    on_the_loop = mode == "async" or (mode == "auto" and is_async(agent))
    return lambda attempt: _coroutine(agent, attempt) if on_the_loop else _thread(agent, attempt)


async def run_until(work: Awaitable[T], stop: "asyncio.Future[None]", timeout_s: float | None) -> T | None:
    """The result of `work`; None if `stop` or the timeout came first, after which `work` is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        either: set[asyncio.Future[Any]] = {task, stop}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_S)


@contextmanager
def _coroutine(agent: Callable[[Claim], Any], attempt: OpenAttempt) -> Iterator[Run]:
    yield Run(call_async(agent, attempt.claim))


@contextmanager
def _thread(agent: Callable[[Claim], Any], attempt: OpenAttempt) -> Iterator[Run]:
    async def outcome() -> Outcome:
        context = contextvars.copy_context()
        return await in_thread(lambda: context.run(call, agent, attempt.claim), f"agent-{attempt.claim.trace_id[-8:]}")

    yield Run(outcome())


@contextmanager
def _process(processes: AgentProcesses, attempt: OpenAttempt) -> Iterator[Run]:
    with span_counts() as counts:
        yield Run(processes.run(attempt.claim, _environment(attempt, counts)), other_spans=counts.total)


@contextmanager
def _program(command: Command, attempt: OpenAttempt) -> Iterator[Run]:
    """The task's input is its standard input, and `LEYDEN_TASK_INPUT`."""
    output = Output()
    stdin = b"" if attempt.claim.input is None else input_text(attempt.claim.input).encode(errors="surrogateescape")

    async def outcome() -> Outcome:
        try:
            async with running(command.argv, _environment(attempt, counts), stdin, output) as program:
                end = await program.wait()
        except OSError as error:
            return infrastructure_failed(f"cannot start the program: {error}")
        return outcome_of(end, command.reward_from)

    with span_counts() as counts:
        yield Run(outcome(), output.tail, counts.total)


def _environment(attempt: OpenAttempt, counts: SpanCounts) -> dict[str, str]:
    url = attempt.session.gateway.url
    return environment_of(
        claim=attempt.claim,
        gateway_url=url,
        traceparent=traceparent_of(attempt.span),
        base=os.environ,
        span_counts=counts.path,
    )


MAX_SHOWN = 120
"""Characters of a program's last line in a message."""


def outcome_of(end: ProgramEnd, reward_from: str | None = None, stopped_by: signal.Signals | None = None) -> Outcome:
    """Exit code 0 is success, with the JSON object on the last line, else the text, as output. All else is failure.

    A program that was killed from outside failed by infrastructure; one that failed after a signal that we forwarded
    (`stopped_by`) was interrupted.
    """
    tail = end.stderr.strip()[-MAX_OUTPUT_TAIL:] or end.stdout.strip()[-MAX_OUTPUT_TAIL:]
    if end.returncode != 0:
        if stopped_by is not None:
            return stopped(f"stopped by {stopped_by.name}")
        if end.returncode == -signal.SIGKILL:
            return infrastructure_failed(f"the program was killed from outside, perhaps because memory ran out\n{tail}")
        cause = f"exit code {end.returncode}" if end.returncode > 0 else f"signal {-end.returncode}"
        raised = _RAISED.match(_last_line(end.stderr))
        error_type = raised[1] if raised else cause.replace(" ", "_")
        return process_failed(f"the program ended with {cause}\n{tail}", error_type, end.stderr.strip())
    answer = _last_line_json(end.stdout)
    output: Any = answer if isinstance(answer, dict) else end.stdout.strip() or None
    if reward_from is None:
        return Outcome(output=output)
    reward = _reward_in(answer, reward_from)
    return Outcome(
        reward=reward, output=output, notice="" if reward is not None else _no_reward(end.stdout, reward_from)
    )


def _no_reward(stdout: str, path: str) -> str:
    """What is wrong with the last line, which should hold the reward."""
    line = _last_line(stdout)
    shown = f"{line[:MAX_SHOWN]}…" if len(line) > MAX_SHOWN else line
    found = f"the last line of stdout is {shown!r}" if line else "stdout is empty"
    wanted = "a finite number" if path == "." else f"JSON with a finite number at {path!r}"
    return f"no reward was recorded: --reward-from {path} needs {wanted} in the last line of stdout; {found}"


def _last_line(text: str) -> str:
    return text.rstrip().rpartition("\n")[2]


def _last_line_json(text: str) -> Any:
    """The JSON value on the last line; None when it is not JSON."""
    try:
        return json.loads(_last_line(text), parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None


def _reward_in(answer: Any, path: str) -> float | None:
    """The finite number at `path` (keys joined by dots; `.` is the value itself); None when there is none."""
    for key in path.split(".") if path != "." else ():
        answer = answer.get(key) if isinstance(answer, dict) else None
    return float(answer) if isinstance(answer, int | float) and math.isfinite(answer) else None
