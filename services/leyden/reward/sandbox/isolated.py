"""Runs one function in its own worker processes. A broken worker is replaced; only the view that broke it fails."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from leyden.reward.core.answer import Answer
from leyden.reward.core.failures import FailureKind, RuleFailed
from leyden.reward.sandbox.process import WorkerProcess
from leyden.reward.sandbox.spec import CallSpec
from leyden.reward.sandbox.views import Views
from leyden.settings import RunFileError

VIEWS_AT_A_TIME = 32
"""Views per frame, and so the number of concurrent async calls in a worker."""


class IsolatedFunction:
    """Answers views with at most `workers` processes, each started at its first use and kept."""

    def __init__(self, spec: CallSpec, workers: int = 1, answered: Callable[[], None] = lambda: None) -> None:
        """`answered` is called after every answer, as a sign of progress."""
        self._spec = spec
        self._answered = answered
        self._idle: asyncio.LifoQueue[WorkerProcess | None] = asyncio.LifoQueue()
        for _ in range(workers):
            self._idle.put_nowait(None)

    async def start(self) -> None:
        """Load the function in one worker. Raises `RunFileError` if that fails."""
        worker = await self._idle.get()
        try:
            worker = worker or await WorkerProcess.start(self._spec)
        except RuleFailed as failure:
            raise RunFileError(f"reward function {self._spec.called!r}: {failure.reason}") from failure
        finally:
            self._idle.put_nowait(worker)

    async def answers(self, views: Views) -> list[Answer | None]:
        """One answer per view, which may be a failure; None for a view not reached before its worker broke."""
        size = len(views) if self._spec.batched else VIEWS_AT_A_TIME
        parts = [range(at, min(at + size, len(views))) for at in range(0, len(views), size)]
        answered = await asyncio.gather(*(self._part(views.choice(part)) for part in parts))
        return [answer for part in answered for answer in part]

    async def close(self) -> None:
        """Stop idle workers."""
        for worker in [self._idle.get_nowait() for _ in range(self._idle.qsize())]:
            if worker is not None:
                await worker.end()
            self._idle.put_nowait(None)

    async def _part(self, views: Views) -> list[Answer | None]:
        found: list[Answer | None] = [None] * len(views)
        worker = await self._idle.get()
        try:
            held, worker = worker, None
            worker = await self._try(held, views, found)
        finally:
            self._idle.put_nowait(worker)
        return found

    async def _try(
        self, worker: WorkerProcess | None, views: Views, found: list[Answer | None]
    ) -> WorkerProcess | None:
        """Put at least one answer into `found`. Returns the worker if it can be used again."""
        try:
            worker = worker or await WorkerProcess.start(self._spec)
            reusable = await self._ask(worker, views, found)
        except RuleFailed as failure:
            silent = [index for index, answer in enumerate(found) if answer is None]
            at_work = silent[:1] if worker is not None and worker.one_by_one else silent
            for index in at_work:
                found[index] = Answer.failed(failure.kind, failure.reason)
            self._answered()
            reusable = False
        except BaseException:
            if worker is not None:
                await worker.end()
            raise
        if reusable or worker is None:
            return worker
        await worker.end()
        return None

    async def _ask(self, worker: WorkerProcess, views: Views, found: list[Answer | None]) -> bool:
        """Ask for all `views`. False if the worker ran out of memory and must not get the remaining ones."""
        async with aclosing(worker.answers(views.encoded())) as answers:
            async for index, answer in answers:
                found[index] = answer
                self._answered()
                if answer.failure is FailureKind.MEMORY and worker.one_by_one:
                    return False
        return all(answer is not None and answer.failure is not FailureKind.MEMORY for answer in found)
