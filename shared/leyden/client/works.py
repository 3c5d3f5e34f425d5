"""The ways in which a runner runs an agent: on its event loop, in a thread, in a process, as a program.

Each is awaited for the agent's outcome, and stopped by cancelling that. A thread cannot be stopped from outside: it is
left alone, and calls that it still makes belong to an attempt that is over.
"""

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from typing import Any, Literal, Protocol

from leyden.client.claims import Claim
from leyden.client.counting import SpanCounts, span_counts
from leyden.client.environment import environment_of, input_text
from leyden.client.errors import ConfigurationError
from leyden.client.looping import call_soon
from leyden.client.outcomes import Outcome, given_up
from leyden.client.processes import AgentProcess, awaited, called, is_async
from leyden.client.programs import Command, Program, outcome_of
from leyden.client.rollouts import OpenAttempt
from leyden.client.spanning import traceparent_of

Mode = Literal["auto", "async", "thread", "process"]


class Run(Protocol):
    """One run of the agent."""

    async def outcome(self) -> Outcome:
        """The agent's end."""

    def last_words(self) -> str:
        """What it said before it was stopped."""

    def other_spans(self) -> int | None:
        """How many spans other processes sent for it; None when that is not known."""


Work = Callable[[OpenAttempt], Run]


def work_of(agent: Any, mode: Mode) -> Work:
    """How to run `agent`. Raises `ConfigurationError` when it cannot be run that way."""
    if isinstance(agent, Command):
        return lambda attempt: ProgramRun(agent, attempt)
    if mode == "process":
        processes = AgentProcess(agent)
        return lambda attempt: ProcessRun(processes, attempt)
    if mode == "async" and not is_async(agent):
        raise ConfigurationError(f"mode='async' needs an `async def` agent, not {agent!r}")
    if mode == "auto":
        mode = "async" if is_async(agent) else "thread"
    if mode == "async":
        return lambda attempt: AsyncRun(agent, attempt)
    return lambda attempt: ThreadRun(agent, attempt)


class InProcess:
    """What runs in this process counts its own spans."""

    def __init__(self, agent: Callable[[Claim], Any], attempt: OpenAttempt) -> None:
        self._agent = agent
        self._claim = attempt.claim

    def last_words(self) -> str:
        """They went where our own output goes."""
        return ""

    def other_spans(self) -> int | None:
        """There are no others."""
        return 0


class AsyncRun(InProcess):
    """A coroutine on the runner's event loop."""

    async def outcome(self) -> Outcome:
        """The agent's end."""
        return await awaited(self._agent, self._claim)


class ThreadRun(InProcess):
    """A daemon thread. An async agent gets an event loop of its own there."""

    async def outcome(self) -> Outcome:
        """The agent's end."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Outcome] = loop.create_future()
        context = contextvars.copy_context()

        def run() -> Outcome:
            if is_async(self._agent):
                return asyncio.run(awaited(self._agent, self._claim))
            return called(self._agent, self._claim)

        def work() -> None:
            result = context.run(run)
            call_soon(loop, lambda: None if outcome.done() else outcome.set_result(result))

        threading.Thread(target=work, name=f"agent-{self._claim.trace_id[-8:]}", daemon=True).start()
        return await outcome


class Elsewhere:
    """What runs in other processes gets the rollout by its environment, and counts its spans in a file."""

    def __init__(self, attempt: OpenAttempt) -> None:
        self._attempt = attempt
        self._total: int | None = None

    def environment(self, counts: SpanCounts) -> dict[str, str]:
        """Ours, and the rollout."""
        traceparent = traceparent_of(self._attempt.span)
        url = self._attempt.session.gateway.url
        return environment_of(self._attempt.claim, url, traceparent, os.environ, counts.path)

    def last_words(self) -> str:
        """None."""
        return ""

    def other_spans(self) -> int | None:
        """As its processes have noted them."""
        return self._total


class ProcessRun(Elsewhere):
    """A function in a process of its own."""

    def __init__(self, processes: AgentProcess, attempt: OpenAttempt) -> None:
        super().__init__(attempt)
        self._processes = processes

    async def outcome(self) -> Outcome:
        """The agent's end."""
        with span_counts() as counts:
            try:
                return await self._processes.run(self._attempt.claim, self.environment(counts))
            finally:
                self._total = counts.total()


class ProgramRun(Elsewhere):
    """A program; the task's input is its standard input, and `LEYDEN_TASK_INPUT`."""

    def __init__(self, command: Command, attempt: OpenAttempt) -> None:
        super().__init__(attempt)
        self._command = command
        self._program: Program | None = None

    async def outcome(self) -> Outcome:
        """The program's end."""
        task_input = self._attempt.claim.input
        stdin = b"" if task_input is None else input_text(task_input).encode(errors="surrogateescape")
        with span_counts() as counts:
            self._program = program = Program(self._command.argv, self.environment(counts), stdin)
            try:
                return outcome_of(await program.run(), self._command.reward_from)
            except OSError as error:
                return given_up(f"the program cannot be started: {error}")
            finally:
                self._total = counts.total()

    def last_words(self) -> str:
        """The end of its output."""
        return self._program.last_words() if self._program else ""
