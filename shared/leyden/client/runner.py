"""Claims tasks and runs an agent on them, several at a time. It knows nothing of what the agent does.

A failing agent is data: its rollout ends as failed and the runner goes on. A gateway that is away is waited for: claims
for ever, heartbeats while the agent runs, ends for `patience_s`.
"""

import asyncio
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
from leyden.client.looping import call_soon, cancel, first_of
from leyden.client.outcomes import Outcome, given_up, timed_out
from leyden.client.programs import Command
from leyden.client.progress import Progress, Tally, progress_of
from leyden.client.rollouts import abandon_attempt, close_attempt, open_attempt
from leyden.client.session import init
from leyden.client.works import Mode, Run, work_of

logger = logging.getLogger("leyden.client")
T = TypeVar("T")

Agent = Callable[[Claim], Any] | Callable[[Claim], Awaitable[Any]] | Command
"""Returns None, or a finite number (its reward), or anything else (its output): see `outcomes.from_return`."""

CLAIM_LIMIT = 256
"""Most that the gateway gives at once."""
CLAIM_PATIENCE_S = 5.0
"""Of one claim; then the runner looks whether it was stopped, and claims again."""


class Runner:
    """`Runner(agent, concurrency=8).run()`: claim, run, end, until `stop()` or SIGTERM; then finish what is running.

    `agent` is called with a `Claim`. `mode` says where: "async" on the runner's event loop, "thread" in a thread of its
    own, "process" in a process of its own ("auto": by whether it is an `async def`). After a timeout or a lost lease a
    coroutine is cancelled and a process is killed with all its children; a thread cannot be stopped from outside: its
    rollout is ended and the thread left alone. `limit` ends the runner after so many rollouts, `until_empty` when the
    queue is empty.
    """

    def __init__(
        self,
        agent: Agent,
        gateway: str | None = None,
        api_key: str | None = None,
        *,
        concurrency: int = 8,
        mode: Mode = "auto",
        limit: int | None = None,
        until_empty: bool = False,
        progress: bool | None = False,
        name: str | None = None,
        runner_id: str | None = None,
        wait_s: float = 5.0,
        drain_s: float = 60.0,
        patience_s: float = 60.0,
    ) -> None:
        self.tally = Tally()
        self._work = work_of(agent, mode)
        self._session = init(gateway, api_key, patience_s=patience_s)
        self._concurrency = concurrency
        self._left = limit
        self._until_empty = until_empty
        self._progress = progress_of(progress, limit)
        self._name = name or str(getattr(agent, "__name__", "agent"))
        self._runner_id = runner_id or f"{socket.gethostname()}-{threading.get_native_id()}"
        self._wait_s = wait_s
        self._drain_s = drain_s
        self._stopped = threading.Event()
        self._away = False
        self._wake: Callable[[], None] = lambda: None
        self._io = ThreadPoolExecutor(concurrency + 1, thread_name_prefix="leyden-runner")

    @property
    def counts(self) -> Counter[str]:
        """Ended attempts: `succeeded`, a failure class, or `lease_lost`."""
        return self.tally.counts

    def run(self) -> None:
        """Serve until stopped; in the main thread SIGINT and SIGTERM stop it gracefully, a second one at once.

        Where an event loop runs already (a notebook), it serves on one of its own, in a thread.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(self._serve_with_signals())
            return
        with ThreadPoolExecutor(1) as elsewhere:
            served = elsewhere.submit(lambda: asyncio.run(self.serve()))
            try:
                served.result()
            except KeyboardInterrupt:
                self.stop()
                raise

    def stop(self) -> None:
        """Claim no more; `run` returns when what is running has ended, or after `drain_s`. From any thread."""
        self._stopped.set()
        self._wake()

    async def serve(self) -> None:
        """As `run`, within a running event loop and without signals. Raises `GatewayRefusedError` for a wrong key."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        self._wake = lambda: call_soon(loop, stopping.set)
        if self._stopped.is_set():
            stopping.set()
        running: set[asyncio.Task[None]] = set()
        with self._progress as progress:
            try:
                await self._claim_until(stopping, running, progress)
            finally:
                await self._drain(running)
                progress.show(self.tally)
                self._wake = lambda: None
                self._io.shutdown(wait=False)

    async def _claim_until(self, stopping: asyncio.Event, running: set[asyncio.Task[None]], progress: Progress) -> None:
        while not stopping.is_set() and self._left != 0:
            free = self._concurrency - len(running)
            if free == 0:
                await first_of(*running, stopping=stopping)
                continue
            claims = await self._claim(min(free, CLAIM_LIMIT, free if self._left is None else self._left))
            for claim in claims:
                task = asyncio.create_task(self._run_one(claim, progress), name=claim.trace_id)
                running.add(task)
                task.add_done_callback(running.discard)
                task.add_done_callback(_report)
            self.tally.running = len(running)
            progress.show(self.tally)
            self._left = None if self._left is None else self._left - len(claims)
            if self._until_empty and not claims and not running and not self._away and await self._is_empty():
                return
        while running and not stopping.is_set():
            await first_of(*running, stopping=stopping)

    async def _is_empty(self) -> bool:
        """Whether nothing waits: what another runner fails at may come back, and is waited for no longer."""
        try:
            return await self._off_loop(self._session.gateway.waiting) == 0
        except GatewayUnavailableError:
            return False

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

    async def _run_one(self, claim: Claim, progress: Progress) -> None:
        loop = asyncio.get_running_loop()
        lost = asyncio.Event()
        attempt = open_attempt(self._session, claim, self._name, lambda: call_soon(loop, lost.set))
        with attempt.enter():
            run = self._work(attempt)
            outcome = await self._outcome(run, claim, lost)
        self.tally.add(outcome)
        self.tally.running -= 1
        progress.show(self.tally)
        if outcome is None:
            abandon_attempt(attempt)
            return
        await self._off_loop(lambda: close_attempt(attempt, outcome, run.other_spans))

    async def _outcome(self, run: Run, claim: Claim, lost: asyncio.Event) -> Outcome | None:
        """The agent's outcome, or that of its time running out; None when the lease was lost."""
        agent = asyncio.ensure_future(run.outcome())
        try:
            await first_of(agent, stopping=lost, timeout_s=claim.timeout_s)
        except asyncio.CancelledError:
            await cancel(agent)
            return given_up("the runner was stopped before the agent had ended")
        if agent.done():
            return agent.result()
        await cancel(agent)
        return None if lost.is_set() else timed_out(claim.timeout_s or 0.0, run.last_words())

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


def _report(task: asyncio.Task[None]) -> None:
    """A rollout that was lost to an error of ours is said aloud; the gateway gives it to others after its lease."""
    if not task.cancelled() and (error := task.exception()):
        logger.error("rollout %s was lost by the runner", task.get_name(), exc_info=error)
