"""One unmodified program as one rollout: what `leyden run` does. It prints nothing but the program's own output."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from leyden.client.claims import Claim
from leyden.client.counting import SpanCounts, span_counts
from leyden.client.environment import environment_of, inherited, input_text
from leyden.client.errors import ConfigurationError
from leyden.client.looping import call_soon, cancel, first_of
from leyden.client.outcomes import timed_out
from leyden.client.programs import Command, Program, outcome_of
from leyden.client.rollouts import OpenAttempt, abandon_attempt, close_attempt, open_attempt
from leyden.client.session import Session, init
from leyden.client.spanning import traceparent_of

TIMED_OUT = 124
"""Exit code, as `timeout` has it."""
NOTHING_TO_DO = 75
"""Exit code: no task came, or the lease was lost; trying again may help."""
LEASE_S = 30.0
"""Beats begin at a third of it; the gateway's first answer says its own."""
CLAIM_S = 30.0
"""Most that the gateway lets one claim wait."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

Sink = Callable[[bytes], None]


@dataclass(frozen=True)
class Launch:
    """What to run, and as which rollout."""

    command: Command
    name: str | None = None
    task_input: Any = None
    task_id: str | None = None
    group_id: str | None = None
    group_size: int | None = None
    mode: str = "train"
    timeout_s: float = 86_400.0
    claim: bool = False
    """Take a queued task instead of beginning a rollout of our own."""
    wait_s: float = 30.0
    """How long to wait for the gateway, or for a task."""


def launch(plan: Launch, gateway: str | None = None, api_key: str | None = None) -> int:
    """Run the program to its end; its exit code, or one of this module's. Raises `LeydenError`, FileNotFoundError.

    Inside of a rollout already, the program takes part in that one.
    """
    program = shutil.which(plan.command.argv[0])
    if program is None:
        raise FileNotFoundError(plan.command.argv[0])
    if inherited() is not None:
        os.execv(program, list(plan.command.argv))  # noqa: S606 - it is what we were asked to run
    session = init(gateway, api_key)
    if session.gateway.api_key is None:
        raise ConfigurationError("no key: pass --api-key or set LEYDEN_API_KEY")
    claim = _claimed(session, plan) if plan.claim else _begun(session, plan)
    return NOTHING_TO_DO if claim is None else asyncio.run(_run(session, claim, plan))


def _begun(session: Session, plan: Launch) -> Claim:
    task = {"task_id": plan.task_id, "input": plan.task_input, "mode": plan.mode, "timeout_s": plan.timeout_s}
    asked = {"group_id": plan.group_id, "group_size": plan.group_size, "runner": _runner_id()}
    body = {key: value for key, value in asked.items() if value is not None}
    claim = session.gateway.start(
        body | {"task": {key: value for key, value in task.items() if value is not None}}, plan.wait_s
    )
    # Its first lease lasts as long as the rollout may: with beats, one that was killed is noticed sooner.
    return replace(claim, lease_s=min(claim.lease_s, LEASE_S))


def _claimed(session: Session, plan: Launch) -> Claim | None:
    claims = session.gateway.claim(_runner_id(), 1, min(plan.wait_s, CLAIM_S), plan.wait_s)
    return claims[0] if claims else None


def _runner_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


async def _run(session: Session, claim: Claim, plan: Launch) -> int:
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()
    name = plan.name or plan.command.__name__
    attempt = open_attempt(session, claim, name, lambda: call_soon(loop, lost.set))
    with span_counts() as counts:
        program = _program(attempt, plan, counts)
        ended = asyncio.ensure_future(program.run(_echo(sys.stdout.buffer), _echo(sys.stderr.buffer)))
        with _forwarding(loop, program):
            await first_of(ended, stopping=lost, timeout_s=claim.timeout_s)
        if ended.done():
            end = ended.result()
            outcome, code = outcome_of(end, plan.command.reward_from, program.stopped_by), end.exit_code
        else:
            await cancel(ended)
            outcome, code = timed_out(claim.timeout_s or 0.0, program.last_words()), TIMED_OUT
        if lost.is_set():
            abandon_attempt(attempt)
            return NOTHING_TO_DO
        close_attempt(attempt, outcome, counts.total)
        return code


def _program(attempt: OpenAttempt, plan: Launch, counts: SpanCounts) -> Program:
    """A task's input is the program's standard input; without one it has ours.

    At a terminal it stays in our process group, else it could not read from there.
    """
    task_input = attempt.claim.input
    stdin = None if task_input is None else input_text(task_input).encode(errors="surrogateescape")
    base = {"PYTHONUNBUFFERED": "1"} | os.environ
    environment = environment_of(
        attempt.claim, attempt.session.gateway.url, traceparent_of(attempt.span), base, counts.path
    )
    return Program(plan.command.argv, environment, stdin, group=stdin is not None or not sys.stdin.isatty())


def _echo(stream: BinaryIO) -> Sink:
    """Pass the bytes on, until nobody reads them any more."""
    gone = False

    def write(data: bytes) -> None:
        nonlocal gone
        try:
            if not gone:
                stream.write(data)
                stream.flush()
        except BrokenPipeError:
            gone = True

    return write


@contextmanager
def _forwarding(loop: asyncio.AbstractEventLoop, program: Program) -> Iterator[None]:
    """Signals that we get are the program's; a terminal's Ctrl-C reaches it by itself."""
    for number in FORWARDED:
        loop.add_signal_handler(number, program.signal, number)
    try:
        yield
    finally:
        for number in FORWARDED:
            loop.remove_signal_handler(number)
