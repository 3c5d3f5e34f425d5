"""Runner: claims rollouts and runs an agent on them, several at a time.

`_serve` claims rollouts; `_run` opens the attempt, runs the agent and closes the attempt. If an agent fails, its
rollout ends as failed and the runner goes on. While the gateway is unreachable, claims are retried without limit,
heartbeats while the agent runs, and ends for `retry_timeout_s`.
"""

import asyncio
import logging
import signal
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from leyden.client.attempts import abandon_attempt, close_attempt, open_attempt
from leyden.client.claims import Claim
from leyden.client.errors import GatewayUnavailableError
from leyden.client.executors import Command, Mode, executor_of, run_until
from leyden.client.outcomes import Outcome, stopped, timed_out
from leyden.client.progress import Progress, Tally, ToldFailures, first_of_its_kind, progress_of
from leyden.client.rollouts import enter_attempt
from leyden.client.session import init

logger = logging.getLogger("leyden.client")
T = TypeVar("T")

Agent = Callable[[Claim], Any] | Callable[[Claim], Awaitable[Any]] | Command
"""Returns None, or a finite number (its reward), or anything else (its output): see `outcomes.from_return`."""

CLAIM_LIMIT = 256
"""The gateway's limit for one claim request."""
CLAIM_RETRY_S = 5.0
"""How long one claim is retried before the runner checks whether it was stopped."""


class Runner:
    """`Runner(agent, concurrency=8).run()`: claim, run, end, until `stop()` or SIGTERM; then drain.

    `agent` is called with a `Claim`. `mode` says where: "async" on the runner's event loop, "thread" in a thread,
    "process" in a process; "auto" is "async" for an `async def`, else "thread". After a timeout or a lost lease a
    coroutine is cancelled and a process is killed with all its children; a thread cannot be stopped, so its rollout is
    ended and the thread keeps running. With `limit` the runner stops after that many rollouts, with `until_empty` when
    the queue is empty.
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
        retry_timeout_s: float = 60.0,
    ) -> None:
        self.tally = Tally()
        self._told = ToldFailures()
        self._execute = executor_of(agent, mode)
        self._session = init(gateway, api_key, retry_timeout_s=retry_timeout_s)
        self._concurrency = concurrency
        self._limit = limit
        self._until_empty = until_empty
        self._progress = progress_of(progress, limit)
        self._name = name or str(getattr(agent, "__name__", "agent"))
        self._runner_id = runner_id or f"{socket.gethostname()}-{threading.get_native_id()}"
        self._wait_s = wait_s
        self._drain_s = drain_s
        self._stopped: Future[None] = Future()
        self._io = ThreadPoolExecutor(concurrency + 1, thread_name_prefix="leyden-runner")

    @property
    def counts(self) -> Counter[str]:
        """Ended attempts: `succeeded`, a failure class, or `lease_lost`."""
        return self.tally.counts

    def run(self) -> None:
        """Serve until stopped. In the main thread the first SIGINT or SIGTERM drains, a second one ends at once.

        If an event loop is already running (a notebook), it serves on a loop of its own in another thread.
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
        """Claim no more; `run` returns when all running rollouts have ended, or after `drain_s`. Thread-safe."""
        with suppress(InvalidStateError):
            self._stopped.set_result(None)

    async def serve(self) -> None:
        """As `run`, on the running event loop and without signals. Raises `GatewayRefusedError` for a wrong key."""
        running: set[asyncio.Task[None]] = set()
        with self._progress as progress:
            try:
                await self._serve(asyncio.wrap_future(self._stopped), running, progress)
            finally:
                await self._drain(running)
                progress.show(self.tally)
                self._io.shutdown(wait=False)

    async def _serve(
        self, stopped: "asyncio.Future[None]", running: set[asyncio.Task[None]], progress: Progress
    ) -> None:
        """Claim a rollout for each free slot, and start a task for each."""
        left, reachable = self._limit, True
        while not stopped.done() and left != 0:
            free = self._concurrency - len(running)
            if free == 0:
                await asyncio.wait({*running, stopped}, return_when=asyncio.FIRST_COMPLETED)
                continue
            claims = await self._claim(min(free, CLAIM_LIMIT, free if left is None else left), reachable)
            reachable = claims is not None
            for claim in claims or ():
                task = asyncio.create_task(self._run(claim, progress), name=claim.trace_id)
                running.add(task)
                task.add_done_callback(running.discard)
                task.add_done_callback(_log_bug)
            self.tally.running = len(running)
            progress.show(self.tally)
            left = None if left is None else left - len(claims or ())
            if self._until_empty and claims == [] and not running and await self._is_queue_empty():
                return
        while running and not stopped.done():
            await asyncio.wait({*running, stopped}, return_when=asyncio.FIRST_COMPLETED)

    async def _claim(self, limit: int, was_reachable: bool) -> list[Claim] | None:
        """Claimed attempts; None while the gateway is unreachable."""
        gateway = self._session.gateway
        try:
            return await self._off_loop(lambda: gateway.claim(self._runner_id, limit, self._wait_s, CLAIM_RETRY_S))
        except GatewayUnavailableError as error:
            if was_reachable:
                logger.warning("waiting for the gateway (logged once until it is back): %s", error)
            return None

    async def _is_queue_empty(self) -> bool:
        """Whether no attempt is waiting. Retries of other runners' attempts may still be queued later."""
        try:
            return await self._off_loop(self._session.gateway.queued) == 0
        except GatewayUnavailableError:
            return False

    async def _run(self, claim: Claim, progress: Progress) -> None:
        """Run one claimed rollout."""
        attempt = open_attempt(self._session, claim, self._name)
        lost = asyncio.wrap_future(attempt.lost)
        with self._execute(attempt) as run, enter_attempt(attempt):
            outcome: Outcome | None
            try:
                outcome = await run_until(run.outcome, lost, claim.timeout_s)
                if outcome is None and not lost.done():
                    outcome = timed_out(claim.timeout_s or 0.0, run.output_tail())
            except asyncio.CancelledError:
                outcome = stopped("the runner was stopped before the agent had ended")
            other_spans = run.other_spans()
        self.tally.add(outcome)
        if outcome is not None and self._told.is_new(outcome):
            logger.warning("%s", first_of_its_kind(outcome, claim.trace_id))
        self.tally.running -= 1
        progress.show(self.tally)
        if outcome is None:
            abandon_attempt(attempt)
        else:
            await self._off_loop(lambda: close_attempt(attempt, outcome, other_spans))

    async def _drain(self, running: set[asyncio.Task[None]]) -> None:
        """Wait `drain_s` for running rollouts, then end the others as interrupted: they lose no try by it."""
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


def _log_bug(task: asyncio.Task[None]) -> None:
    """Log an exception of our own; the gateway gives the rollout to another runner after its lease."""
    if not task.cancelled() and (error := task.exception()):
        logger.error("a bug in the runner lost rollout %s", task.get_name(), exc_info=error)
