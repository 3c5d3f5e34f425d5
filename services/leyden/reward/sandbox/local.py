"""Runs one function within the service's process: no start-up or copying cost, but no enforced limits."""

import asyncio
from collections.abc import Callable, Sequence

from leyden.reward.core.answer import Answer
from leyden.reward.core.view import RolloutView
from leyden.reward.sandbox.call import await_many, await_one, call_many, call_one, is_async
from leyden.reward.sandbox.spec import CallSpec, UnusableFunctionError
from leyden.reward.sandbox.views import Views
from leyden.settings import RunFileError


class LocalFunction:
    """For fast, trusted functions. An async function is cancelled after `timeout_s`; a sync one cannot be stopped."""

    def __init__(self, spec: CallSpec, answered: Callable[[], None] = lambda: None) -> None:
        """`answered` is called after every answer, as a sign of progress."""
        self._spec = spec
        self._answered = answered
        try:
            self._function = spec.load()
        except UnusableFunctionError as error:
            raise RunFileError(str(error)) from error

    async def start(self) -> None:
        """No-op: the function is already loaded."""

    async def close(self) -> None:
        """No-op."""

    async def answers(self, views: Views) -> Sequence[Answer]:
        """One answer per view, which may be a failure."""
        function, items, timeout_s = self._function, views.items, self._spec.timeout_s
        if is_async(function):
            if self._spec.batched:
                return await await_many(function, items, timeout_s)
            return await asyncio.gather(*map(self._awaited, items))
        if self._spec.batched:
            return await asyncio.to_thread(call_many, function, items)
        return await asyncio.to_thread(lambda: [self._called(view) for view in items])

    async def _awaited(self, view: RolloutView) -> Answer:
        answer = await await_one(self._function, view, self._spec.timeout_s)
        self._answered()
        return answer

    def _called(self, view: RolloutView) -> Answer:
        answer = call_one(self._function, view)
        self._answered()
        return answer
