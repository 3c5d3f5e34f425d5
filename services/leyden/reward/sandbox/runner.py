"""Runs every reward function of the run file over a batch of attempts, with retries and a pause for broken ones."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from leyden.backoff import Backoff
from leyden.reward import metrics
from leyden.reward.core.answer import Answer
from leyden.reward.core.failures import FailureKind
from leyden.reward.core.view import RolloutView
from leyden.reward.sandbox.views import Views

log = logging.getLogger(__name__)
MAX_DELAY_S = 30.0
"""Longest wait before a retry."""
WORKER_KINDS = {FailureKind.TIMEOUT, FailureKind.MEMORY, FailureKind.LOST}
"""Failures that cost a worker process, and up to `timeout_s`."""
Sleep = Callable[[float], Awaitable[None]]


class Executor(Protocol):
    """Where a function runs."""

    async def start(self) -> None:
        """Load the function; raises `RunFileError` if that fails."""
        ...

    async def answers(self, views: Views) -> Sequence[Answer | None]:
        """Per view, in order: its answer (or failure), or None if it was not tried; never all None."""
        ...

    async def close(self) -> None:
        """End its processes."""
        ...


@dataclass(frozen=True)
class RetrySettings:
    """How often a function is retried, and when it is suspended.

    A function that loops on every rollout would delay all rewards by `timeout_s` per try. So after `suspend_after`
    rollouts in a row whose last try cost it a worker, it is suspended for `suspend_s`: it fails at once for every
    rollout of that time.
    """

    retries: int = 2
    first_delay_s: float = 0.1
    suspend_after: int = 3
    suspend_s: float = 60.0


class RetriedFunction:
    """One function with its retries."""

    def __init__(
        self,
        name: str,
        executor: Executor,
        settings: RetrySettings = RetrySettings(),
        *,
        sleep: Sleep = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.executor = executor
        self._settings = settings
        self._sleep = sleep
        self._monotonic = monotonic
        self._broken_in_a_row = 0
        self._suspended_until = float("-inf")

    async def answers(self, views: Views) -> list[Answer]:
        """One answer per view. All are tried together; those that failed are retried one by one."""
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
        """`answer`, or the last retry's if it is a failure."""
        delays = Backoff(self._settings.first_delay_s, MAX_DELAY_S).delays()
        for delay_s in islice(delays, self._settings.retries):
            if answer.failure is None or self._is_suspended():
                break
            metrics.FUNCTION_RETRIES.labels(rule=self.name).inc()
            await self._sleep(delay_s)
            answer = (await self.executor.answers(view))[0] or answer
        self._note(answer)
        return answer

    def _note(self, answer: Answer) -> None:
        if self._is_suspended():
            return
        self._broken_in_a_row = self._broken_in_a_row + 1 if answer.failure in WORKER_KINDS else 0
        if self._settings.suspend_after and self._broken_in_a_row == self._settings.suspend_after:
            self._broken_in_a_row = 0
            self._suspended_until = self._monotonic() + self._settings.suspend_s
            log.error(
                "reward function %s is suspended for %g s: %s", self.name, self._settings.suspend_s, answer.message
            )

    def _is_suspended(self) -> bool:
        return self._monotonic() < self._suspended_until

    def _suspended(self) -> Answer:
        count, pause_s = self._settings.suspend_after, self._settings.suspend_s
        return Answer.failed(
            FailureKind.LOST, f"not tried: suspended for {pause_s:g} s after {count} rollouts in a row broke it"
        )


class FunctionRunner:
    """Runs all functions of the run file concurrently."""

    def __init__(self, functions: Sequence[RetriedFunction]) -> None:
        self._functions = functions

    async def start(self) -> None:
        """Load every function; raises `RunFileError` if one cannot be loaded."""
        await asyncio.gather(*(function.executor.start() for function in self._functions))

    async def close(self) -> None:
        """Stop all workers."""
        await asyncio.gather(*(function.executor.close() for function in self._functions))

    async def answers(self, views: Sequence[RolloutView]) -> list[Mapping[str, Answer]]:
        """For each view, the functions' answers by rule name."""
        if not views or not self._functions:
            return [{} for _ in views]
        shared = Views(views)
        with metrics.FUNCTION_SECONDS.time():
            found = await asyncio.gather(*(function.answers(shared) for function in self._functions))
        names = [function.name for function in self._functions]
        return [dict(zip(names, answers, strict=True)) for answers in zip(*found, strict=True)]
