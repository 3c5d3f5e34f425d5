"""Runs every function of the run file over a batch of attempts, before anything is assessed: retries, and gives up."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from leyden.reward import metrics
from leyden.reward.core.answer import Answer
from leyden.reward.core.failures import FailureKind
from leyden.reward.core.view import RolloutView
from leyden.reward.sandbox.views import Views

log = logging.getLogger(__name__)
WORKER_KINDS = {FailureKind.TIMEOUT, FailureKind.MEMORY, FailureKind.LOST}
"""Failures that cost a worker, and `timeout_s` at the worst."""
Sleep = Callable[[float], Awaitable[None]]


class Executor(Protocol):
    """Where a function runs."""

    async def start(self) -> None:
        """Be ready for the first call; raises `RunFileError` when the function cannot be loaded."""
        ...

    async def answers(self, views: Views) -> Sequence[Answer | None]:
        """Per view, in order, its answer (a failure is one too), or None when its turn did not come; never all None."""
        ...

    async def close(self) -> None:
        """Leave no process behind."""
        ...


@dataclass(frozen=True)
class Patience:
    """How often and how long a function is tried.

    A function that loops on every rollout would hold up all rewards for `timeout_s` times the tries a rollout. So, once
    `suspend_after` rollouts in a row have cost it a worker at their last try, it is left alone for `suspend_s`, and
    fails for the rollouts of that time at once.
    """

    retries: int = 2
    first_delay_s: float = 0.1
    suspend_after: int = 3
    suspend_s: float = 60.0


class RetriedFunction:
    """One function with patience."""

    def __init__(
        self,
        name: str,
        executor: Executor,
        patience: Patience = Patience(),
        sleep: Sleep = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.executor = executor
        self._patience = patience
        self._sleep = sleep
        self._monotonic = monotonic
        self._broken_in_a_row = 0
        self._suspended_until = float("-inf")

    async def answers(self, views: Views) -> list[Answer]:
        """One answer per view. All are tried together; those that failed are tried again, each alone."""
        found: dict[int, Answer] = {}
        while todo := [index for index in range(len(views)) if index not in found]:
            if self._is_suspended():
                return [found.get(index) or self._suspended() for index in range(len(views))]
            tried = await self.executor.answers(views.choice(todo))
            for index, answer in zip(todo, tried, strict=True):
                if answer is not None:
                    found[index] = await self._settled(views.choice([index]), answer)
        return [found[index] for index in range(len(views))]

    async def _settled(self, view: Views, answer: Answer) -> Answer:
        """`answer`, or that of the last try when it is a failure; noted."""
        delay = self._patience.first_delay_s
        for _ in range(self._patience.retries):
            if answer.failure is None or self._is_suspended():
                break
            metrics.FUNCTION_RETRIES.labels(rule=self.name).inc()
            await self._sleep(delay)
            delay *= 2
            answer = (await self.executor.answers(view))[0] or answer
        self._note(answer)
        return answer

    def _note(self, answer: Answer) -> None:
        if self._is_suspended():
            return
        self._broken_in_a_row = self._broken_in_a_row + 1 if answer.failure in WORKER_KINDS else 0
        if self._patience.suspend_after and self._broken_in_a_row == self._patience.suspend_after:
            self._broken_in_a_row = 0
            self._suspended_until = self._monotonic() + self._patience.suspend_s
            log.error("reward function %s rests for %g s: %s", self.name, self._patience.suspend_s, answer.message)

    def _is_suspended(self) -> bool:
        return self._monotonic() < self._suspended_until

    def _suspended(self) -> Answer:
        many, pause = self._patience.suspend_after, self._patience.suspend_s
        return Answer.failed(FailureKind.LOST, f"not tried: it broke at {many} rollouts in a row and rests {pause:g} s")


class FunctionRunner:
    """All functions of the run file, side by side."""

    def __init__(self, functions: Sequence[RetriedFunction]) -> None:
        self._functions = functions

    async def start(self) -> None:
        """Load every function; raises `RunFileError` for one that cannot be."""
        await asyncio.gather(*(function.executor.start() for function in self._functions))

    async def close(self) -> None:
        """End every worker."""
        await asyncio.gather(*(function.executor.close() for function in self._functions))

    async def answers(self, views: Sequence[RolloutView]) -> list[Mapping[str, Answer]]:
        """Per view, the answer of each function by its rule's name."""
        if not views or not self._functions:
            return [{} for _ in views]
        shared = Views(views)
        with metrics.FUNCTION_SECONDS.time():
            found = await asyncio.gather(*(function.answers(shared) for function in self._functions))
        names = [function.name for function in self._functions]
        return [dict(zip(names, answers, strict=True)) for answers in zip(*found, strict=True)]
