"""Calls a reward function: sync or async, one view or many. Used in workers and in the service."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from leyden.reward.core.answer import Answer
from leyden.reward.core.failures import FailureKind
from leyden.reward.core.view import RolloutView

log = logging.getLogger(__name__)
AnyFunction = Callable[[Any], Any]


def is_async(function: AnyFunction) -> bool:
    """Whether calling `function` returns an awaitable."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - checks the kind of `__call__`, not whether it exists


def call_one(function: AnyFunction, view: RolloutView) -> Answer:
    """A sync function's answer for one view."""
    try:
        return Answer.of(function(view))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code: an exception is recorded as data
        return failed(error)


async def await_one(function: AnyFunction, view: RolloutView, timeout_s: float) -> Answer:
    """An async function's answer for one view; cancelled after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            return Answer.of(await cast(Awaitable[object], function(view)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the same
        return failed(error)


def call_many(function: AnyFunction, views: Sequence[RolloutView]) -> list[Answer]:
    """A batched sync function's answers, one per view. If it fails, it fails for all views."""
    try:
        return _one_each(function(list(views)), len(views))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the same
        return [failed(error)] * len(views)


async def await_many(function: AnyFunction, views: Sequence[RolloutView], timeout_s: float) -> list[Answer]:
    """A batched async function's answers."""
    try:
        async with asyncio.timeout(timeout_s):
            return _one_each(await cast(Awaitable[object], function(list(views))), len(views))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the same
        return [failed(error)] * len(views)


def failed(error: BaseException) -> Answer:
    """The failure for `error`. A TimeoutError raised by the function itself counts as a timeout."""
    if isinstance(error, MemoryError):
        return Answer.failed(FailureKind.MEMORY, str(error) or "out of memory")
    if isinstance(error, TimeoutError):
        return Answer.failed(FailureKind.TIMEOUT, str(error) or "took longer than timeout_s")
    log.debug("a reward function raised", exc_info=error)
    return Answer.failed(FailureKind.EXCEPTION, f"{type(error).__name__}: {error}")


def _one_each(results: object, count: int) -> list[Answer]:
    if isinstance(results, str | bytes) or not isinstance(results, Sequence):
        kind = type(results).__name__
        return [Answer.failed(FailureKind.MALFORMED, f"a batched function gives a list, not {kind}")] * count
    if len(results) != count:
        message = f"{len(results)} results for {count} rollouts"
        return [Answer.failed(FailureKind.MALFORMED, message)] * count
    return [Answer.of(result) for result in results]
