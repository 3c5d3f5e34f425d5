"""Runs one request's sequences in the scheduler and collects their tokens in a queue."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from leyden.policy.engines.transformers_engine.protocol import SamplingRequest
from leyden.policy.engines.transformers_engine.scheduler import Scheduler
from leyden.policy.engines.transformers_engine.sequence import Delta
from leyden.policy.engines.transformers_engine.sequence import Sequence as Row


class StepFailedError(Exception):
    """A model step failed; all sequences of its batch end with this error."""


class Generation:
    """Generates `n` choices for each prompt, in prompt order."""

    def __init__(
        self, scheduler: Scheduler, request: SamplingRequest, prompts: Sequence[list[int]], max_tokens: int
    ) -> None:
        loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[Delta]()
        self._scheduler = scheduler

        def deliver(delta: Delta) -> None:
            loop.call_soon_threadsafe(self._queue.put_nowait, delta)

        each = [prompt for prompt in prompts for _ in range(request.n)]
        self._rows = [
            Row(index, prompt, request.sampling(index, max_tokens), deliver) for index, prompt in enumerate(each)
        ]

    async def deltas(self) -> AsyncIterator[Delta]:
        """Queue the sequences, and yield the tokens of all choices as they are sampled. Raises StepFailedError.

        If the iterator is closed early, the sequences are cancelled. They are queued here and not before: a response
        whose client has left already is never iterated, so nothing would cancel them.
        """
        left = len(self._rows)
        try:
            self._scheduler.submit(self._rows)
            while left:
                delta = await self._queue.get()
                if delta.error:
                    raise StepFailedError(delta.error)
                left -= delta.finish is not None
                yield delta
        finally:
            for row in self._rows:
                row.cancelled = True
