"""Runs an agent's function in a process of its own, which can be ended for certain: with it goes whatever it started.

The child takes part in the rollout through its environment, like any program: an agent that reads `OPENAI_BASE_URL`
needs no change to run many at a time.
"""

import asyncio
import inspect
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

from opentelemetry import trace

from leyden.client.claims import Claim
from leyden.client.errors import ConfigurationError
from leyden.client.guard import guard
from leyden.client.outcomes import Outcome, ended_badly, from_error, from_return, given_up
from leyden.client.rollouts import enter_claim
from leyden.client.session import close, init
from leyden.client.spanning import context_of

GRACE_S = 2.0
"""Between SIGTERM and SIGKILL."""


class AgentProcess:
    """One agent, ready to be run in any number of processes. Raises `ConfigurationError` when it cannot be sent there.

    Processes are forked from a small server that has imported the agent's module once and has no threads: forking
    ourselves, with ours, would not be safe.
    """

    def __init__(self, agent: Callable[..., Any]) -> None:
        try:
            pickle.dumps(agent)
        except Exception as error:
            raise ConfigurationError(
                f"mode='process' needs an agent that its module names, not {agent!r}: {error}"
            ) from error
        self._agent = agent
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._processes = multiprocessing.get_context(method)
        if method == "forkserver":
            module = getattr(agent, "__module__", "__main__")
            self._processes.set_forkserver_preload([__name__, *([module] if module != "__main__" else [])])

    async def run(self, claim: Claim, environment: Mapping[str, str]) -> Outcome:
        """To its end; when cancelled, the process is ended with all its children."""
        ours, theirs = self._processes.Pipe(duplex=False)
        process = self._processes.Process(  # type: ignore[attr-defined]
            target=child_main, args=(self._agent, claim, dict(environment), theirs), name=f"agent-{claim.trace_id}"
        )
        starting = asyncio.ensure_future(asyncio.to_thread(process.start))
        try:
            await asyncio.shield(starting)
            guard.watch(-process.pid)
            theirs.close()
            await _readable(ours)
            outcome = await asyncio.to_thread(_received, ours)
            if outcome is not None:
                await asyncio.to_thread(process.join, GRACE_S)
        finally:
            await asyncio.shield(_end(process, starting))
            ours.close()
            if process.pid is not None:
                guard.forget(-process.pid)
        return outcome or _unsaid(process.exitcode)


def child_main(agent: Callable[..., Any], claim: Claim, environment: dict[str, str], told: Connection) -> None:
    """In the child: run the agent inside its rollout, send its outcome and the last spans."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, name="leyden-parent", daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    init()
    parent = trace.get_current_span(context_of(environment["TRACEPARENT"]))
    with enter_claim(claim, parent):
        outcome = asyncio.run(awaited(agent, claim)) if is_async(agent) else called(agent, claim)
    close()
    told.send(outcome)
    told.close()


def is_async(agent: Any) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(agent) or inspect.iscoroutinefunction(getattr(agent, "__call__", None))  # noqa: B004 - which kind it is


def called(agent: Callable[..., Any], claim: Claim) -> Outcome:
    """The outcome of a sync agent, whatever it raises: SystemExit is an agent's end as well."""
    try:
        value = agent(claim)
        if inspect.isawaitable(value):
            raise TypeError("the agent returned an awaitable: make it an `async def` function")
        return from_return(value)
    except BaseException as error:  # noqa: BLE001 - the boundary to the agent's code
        return from_error(error)


async def awaited(agent: Callable[..., Any], claim: Claim) -> Outcome:
    """The outcome of an async agent."""
    try:
        return from_return(await agent(claim))
    except BaseException as error:  # noqa: BLE001 - the boundary to the agent's code, its own cancellation included
        return from_error(error)


async def _readable(connection: Connection) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection.fileno())


def _received(connection: Connection) -> Outcome | None:
    try:
        said = connection.recv()
    except (EOFError, OSError):
        return None
    return said if isinstance(said, Outcome) else None


def _unsaid(exitcode: int | None) -> Outcome:
    """The outcome of a process that ended without a word."""
    if exitcode == -signal.SIGKILL:
        return given_up("the agent's process was killed from outside, perhaps for its memory")
    return ended_badly(f"the agent's process ended with exit code {exitcode} and said nothing", f"exit_code_{exitcode}")


async def _end(process: Any, starting: "asyncio.Future[None]") -> None:
    """End it and all that it started. Takes `GRACE_S` at most, beside what its start takes."""
    await asyncio.wait({starting})
    if starting.exception() is None:
        await asyncio.to_thread(_kill, process)


def _kill(process: Any) -> None:
    """SIGTERM to the session that the child began, SIGKILL when that was not enough."""
    for number, patience_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            if process.is_alive():
                os.kill(process.pid, number)  # it has not begun its own session yet
        process.join(patience_s)


def _die_with_parent() -> None:
    """A runner that was killed cannot end its children: they do it, from their first moment on.

    The guard ends those as well whose agent lets no other thread run.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)
