"""Claims tasks and runs an agent's function on them, several at a time. It knows nothing of what the agent does.

A failing agent is data: its rollout ends as failed and the runner goes on. A gateway that is away is waited for: claims
for ever, heartbeats while the agent runs, ends for `patience_s`.
"""

import asyncio
import contextvars
import inspect
import logging
import signal
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from leyden.client.claims import Claim
from leyden.client.errors import GatewayUnavailableError
from leyden.client.outcomes import Outcome, from_error, from_return, given_up, timed_out
from leyden.client.rollouts import abandon_attempt, close_attempt, open_attempt
from leyden.client.session import init

logger = logging.getLogger("leyden.client")
T = TypeVar("T")

Agent = Callable[[Claim], Any] | Callable[[Claim], Awaitable[Any]]
"""Returns None, or a finite number (its reward), or anything else (its output): see `outcomes.from_return`."""

CLAIM_LIMIT = 256
"""Most that the gateway gives at once."""
CLAIM_PATIENCE_S = 5.0
"""Of one claim; then the runner looks whether it was stopped, and claims again."""
CANCEL_S = 5.0
"""What a cancelled async agent gets for its own clean-up."""


class Runner:
    """`Runner(agent, concurrency=8).run()`: claim, run, end, until `stop()` or SIGTERM; then finish what is running.

    `agent` is called with a `Claim`: an async function on the runner's event loop, any other in a thread of its own.
    A thread cannot be stopped from outside: after a timeout or a lost lease its rollout is ended and the thread left
    alone; calls that it still makes belong to an attempt that is over.
    """

    def __init__(
        self,
        agent: Agent,
        gateway: str | None = None,
        api_key: str | None = None,
        *,
        concurrency: int = 8,
        name: str | None = None,
        runner_id: str | None = None,
        wait_s: float = 5.0,
        drain_s: float = 60.0,
        patience_s: float = 60.0,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """Ended attempts: `succeeded`, a failure class, or `lease_lost`."""
        self._agent = agent
        self._async = inspect.iscoroutinefunction(agent) or inspect.iscoroutinefunction(
            getattr(agent, "__call__", None)  # noqa: B004 - whether it is a coroutine function, not whether it is there
        )
        self._session = init(gateway, api_key, patience_s=patience_s)
        self._concurrency = concurrency
        self._name = name or str(getattr(agent, "__name__", "agent"))
        self._runner_id = runner_id or f"{socket.gethostname()}-{threading.get_native_id()}"
        self._wait_s = wait_s
        self._drain_s = drain_s
        self._stopped = threading.Event()
        self._away = False
        self._wake: Callable[[], None] = lambda: None
        self._io = ThreadPoolExecutor(concurrency + 1, thread_name_prefix="leyden-runner")

    def run(self) -> None:
        """Serve until stopped; in the main thread SIGINT and SIGTERM stop it gracefully, a second one at once."""
        asyncio.run(self._serve_with_signals())

    def stop(self) -> None:
        """Claim no more; `run` returns when what is running has ended, or after `drain_s`. From any thread."""
        self._stopped.set()
        self._wake()

    async def serve(self) -> None:
        """As `run`, within a running event loop and without signals. Raises `GatewayRefusedError` for a wrong key."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        self._wake = lambda: _call_soon(loop, stopping.set)
        if self._stopped.is_set():
            stopping.set()
        running: set[asyncio.Task[None]] = set()
        try:
            await self._claim_until(stopping, running)
        finally:
            await self._drain(running)
            self._wake = lambda: None
            self._io.shutdown(wait=False)

    async def _claim_until(self, stopping: asyncio.Event, running: set[asyncio.Task[None]]) -> None:
        while not stopping.is_set():
            free = self._concurrency - len(running)
            if free == 0:
                await _first(*running, stopping=stopping)
                continue
            for claim in await self._claim(min(free, CLAIM_LIMIT)):
                task = asyncio.create_task(self._run_one(claim), name=claim.trace_id)
                running.add(task)
                task.add_done_callback(running.discard)
                task.add_done_callback(_report)

    async def _claim(self, limit: int) -> list[Claim]:
        """What there is to do; nothing when the gateway is away for now."""
        gateway = self._session.gateway
        try:
            claims = await self._off_loop(lambda: gateway.claim(self._runner_id, limit, self._wait_s, CLAIM_PATIENCE_S))
        except GatewayUnavailableError as error:
            if not self._away:
                logger.warning("waiting for the gateway (said once until it is back): %s", error)
            self._away = True
            return []
        self._away = False
        return claims

    async def _run_one(self, claim: Claim) -> None:
        loop = asyncio.get_running_loop()
        lost = asyncio.Event()
        attempt = open_attempt(self._session, claim, self._name, lambda: _call_soon(loop, lost.set))
        with attempt.enter():
            outcome = await self._outcome(claim, lost)
        if outcome is None:
            self.counts["lease_lost"] += 1
            abandon_attempt(attempt)
            return
        self.counts[outcome.failure_class or outcome.status] += 1
        await self._off_loop(lambda: close_attempt(attempt, outcome))

    async def _outcome(self, claim: Claim, lost: asyncio.Event) -> Outcome | None:
        """The agent's outcome, or that of its time running out; None when the lease was lost."""
        agent = asyncio.ensure_future(self._start_agent(claim))
        try:
            await _first(agent, stopping=lost, timeout_s=claim.timeout_s)
        except asyncio.CancelledError:
            await _cancel(agent)
            return given_up("the runner was stopped before the agent had ended")
        if agent.done():
            return agent.result()
        await _cancel(agent)
        return None if lost.is_set() else timed_out(claim.timeout_s or 0.0)

    def _start_agent(self, claim: Claim) -> Awaitable[Outcome]:
        if self._async:
            return _awaited(self._agent, claim)
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Outcome] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            result = context.run(_called, self._agent, claim)
            _call_soon(loop, lambda: None if outcome.done() else outcome.set_result(result))

        threading.Thread(target=work, name=f"agent-{claim.trace_id[-8:]}", daemon=True).start()
        return outcome

    async def _drain(self, running: set[asyncio.Task[None]]) -> None:
        """Let what runs end, for `drain_s`; then give the rest up, so that others can have it at once."""
        if running:
            await asyncio.wait(set(running), timeout=self._drain_s)
        if running:
            for task in running:
                task.cancel()
            await asyncio.wait(set(running))

    async def _off_loop(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._io, call)

    async def _serve_with_signals(self) -> None:
        loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread():
            await self.serve()
            return
        signals = (signal.SIGINT, signal.SIGTERM)

        def on_signal() -> None:
            for each in signals:
                loop.remove_signal_handler(each)
            self.stop()

        for each in signals:
            loop.add_signal_handler(each, on_signal)
        try:
            await self.serve()
        finally:
            for each in signals:
                loop.remove_signal_handler(each)


def _called(agent: Agent, claim: Claim) -> Outcome:
    """The outcome of a sync agent, whatever it raises: SystemExit is an agent's end as well."""
    try:
        value = agent(claim)
        if inspect.isawaitable(value):
            raise TypeError("the agent returned an awaitable: make it an `async def` function")
        return from_return(value)
    except BaseException as error:  # noqa: BLE001 - the boundary to the agent's code
        return from_error(error)


async def _awaited(agent: Agent, claim: Claim) -> Outcome:
    """The outcome of an async agent."""
    try:
        return from_return(await agent(claim))
    except BaseException as error:  # noqa: BLE001 - the boundary to the agent's code, its own cancellation included
        return from_error(error)


def _report(task: asyncio.Task[None]) -> None:
    """A rollout that was lost to an error of ours is said aloud; the gateway gives it to others after its lease."""
    if not task.cancelled() and (error := task.exception()):
        logger.error("rollout %s was lost by the runner", task.get_name(), exc_info=error)


async def _first(*awaited: asyncio.Future[Any], stopping: asyncio.Event, timeout_s: float | None = None) -> None:
    """Wait until one of them is done, or `stopping` is set, or time is up."""
    waiter = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({*awaited, waiter}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()


async def _cancel(future: asyncio.Future[Any]) -> None:
    future.cancel()
    await asyncio.wait({future}, timeout=CANCEL_S)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], Any]) -> None:
    """Run `callback` on the loop, from another thread; nothing when the loop has gone."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
