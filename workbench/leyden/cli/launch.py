"""`leyden run`: runs an unmodified program as one rollout. Prints its trace id to stderr, then the program's output."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from leyden.client.attempts import OpenAttempt, abandon_attempt, close_attempt, open_attempt
from leyden.client.claims import (
    Claim,
    SpanCounts,
    environment_of,
    inherited,
    input_text,
    span_counts,
    traceparent_of,
)
from leyden.client.errors import ConfigurationError
from leyden.client.executors import Command, outcome_of, run_until
from leyden.client.outcomes import timed_out
from leyden.client.processes import ChildProcess, Output, ProgramEnd, Sink, running
from leyden.client.session import Session, init
from leyden.client.waiting import to_stderr, told_if_slow

TIMED_OUT = 124
"""Exit code after a timeout, as of timeout(1)."""
NOTHING_TO_DO = 75
"""Exit code when no task came or the lease was lost; a retry may help."""
LEASE_S = 30.0
"""Lease of a rollout that we start, until the first heartbeat returns the gateway's."""
CLAIM_S = 30.0
"""The gateway's limit for the wait of one claim."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, kw_only=True)
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
    """Claim a queued task instead of starting a rollout."""
    model: str | None = None
    """The model's name in the variables of `MODEL_NAMES`; None: they stay as they are."""
    wait_s: float = 30.0
    """How long to wait for the gateway, or for a task."""


def launch(plan: Launch, gateway: str | None = None, api_key: str | None = None) -> int:
    """Run the program; its exit code, or one of this module's. Raises `LeydenError` and FileNotFoundError.

    Inside a rollout the program runs as part of that one.
    """
    program = shutil.which(plan.command.argv[0])
    if program is None:
        raise FileNotFoundError(plan.command.argv[0])
    if inherited() is not None:
        os.execv(program, list(plan.command.argv))  # noqa: S606 - the program was named by the user
    session = init(gateway, api_key)
    if session.gateway.api_key is None:
        raise ConfigurationError("no API key: pass --api-key or set LEYDEN_API_KEY")
    whom = f"the gateway at {session.gateway.url}{' or for a task' if plan.claim else ''}"
    with told_if_slow(whom, plan.wait_s):
        claim = _claimed(session, plan) if plan.claim else _begun(session, plan)
    if claim is not None:
        to_stderr(f"rollout {claim.trace_id}")
    return NOTHING_TO_DO if claim is None else asyncio.run(_run(session, claim, plan))


def _begun(session: Session, plan: Launch) -> Claim:
    task = {"task_id": plan.task_id, "input": plan.task_input, "mode": plan.mode, "timeout_s": plan.timeout_s}
    asked = {"group_id": plan.group_id, "group_size": plan.group_size, "runner": _runner_id()}
    body = {key: value for key, value in asked.items() if value is not None}
    claim = session.gateway.start(
        body | {"task": {key: value for key, value in task.items() if value is not None}}, plan.wait_s
    )
    # The gateway's first lease is the whole timeout; with a short one and heartbeats, a killed process is noticed soon.
    return replace(claim, lease_s=min(claim.lease_s, LEASE_S))


def _claimed(session: Session, plan: Launch) -> Claim | None:
    claims = session.gateway.claim(_runner_id(), 1, min(plan.wait_s, CLAIM_S), plan.wait_s)
    return claims[0] if claims else None


def _runner_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


async def _run(session: Session, claim: Claim, plan: Launch) -> int:
    attempt = open_attempt(session, claim, plan.name or plan.command.__name__)
    lost = asyncio.wrap_future(attempt.lost)
    output = Output(_echo(sys.stdout.buffer), _echo(sys.stderr.buffer))
    forwarded: list[signal.Signals] = []
    with span_counts() as counts:
        end = await run_until(_run_program(attempt, plan, output, counts, forwarded), lost, claim.timeout_s)
        if lost.done():
            abandon_attempt(attempt)
            return NOTHING_TO_DO
        if end is None:
            outcome, code = timed_out(claim.timeout_s or 0.0, output.tail()), TIMED_OUT
        else:
            stopped_by = forwarded[-1] if forwarded else None
            outcome, code = outcome_of(end, plan.command.reward_from, stopped_by), end.exit_code
            if outcome.notice:
                to_stderr(outcome.notice)
        close_attempt(attempt, outcome, counts.total())
        return code


async def _run_program(
    attempt: OpenAttempt, plan: Launch, output: Output, counts: SpanCounts, forwarded: list[signal.Signals]
) -> ProgramEnd:
    """Give the program the task's input as standard input, or ours if there is none.

    With a terminal as standard input it stays in our process group, or it could not read from it.
    """
    task_input = attempt.claim.input
    stdin = None if task_input is None else input_text(task_input).encode(errors="surrogateescape")
    base = {"PYTHONUNBUFFERED": "1"} | os.environ
    url, traceparent = attempt.session.gateway.url, traceparent_of(attempt.span)
    environment = environment_of(
        claim=attempt.claim,
        gateway_url=url,
        traceparent=traceparent,
        base=base,
        span_counts=counts.path,
        model=plan.model,
    )
    group = stdin is not None or not sys.stdin.isatty()
    async with running(plan.command.argv, environment, stdin, output, group=group) as program:
        with _forwarding(program.child, forwarded):
            return await program.wait()


def _echo(stream: BinaryIO) -> Sink:
    """A sink that writes to the stream until its reader closes it."""
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
def _forwarding(child: ChildProcess, forwarded: list[signal.Signals]) -> Iterator[None]:
    """Forward signals to the program and append them to `forwarded`. Ctrl-C at a terminal reaches it directly."""
    loop = asyncio.get_running_loop()

    def forward(number: signal.Signals) -> None:
        forwarded.append(number)
        child.signal(number)

    for number in FORWARDED:
        loop.add_signal_handler(number, forward, number)
    try:
        yield
    finally:
        for number in FORWARDED:
            loop.remove_signal_handler(number)
