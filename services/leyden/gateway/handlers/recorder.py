"""The record of a call: in the log, then in the list of its attempt, before the last byte leaves."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from leyden.events import ModelCallRecorded
from leyden.events.codec import MODEL_CALLS
from leyden.gateway.core.failures import note_of
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.handlers.keys import KeyLimiter
from leyden.gateway.metrics import LATE_CALLS, RECORD_SECONDS, UNBOUND_CALLS
from leyden.gateway.ports import Log, RolloutStore
from leyden.ids import AttemptRef
from leyden.kafka import Outgoing, Retry

log = logging.getLogger(__name__)


class Recorder:
    """Publishes calls and lists them. A call that was published and not listed is no evidence of its rollout."""

    def __init__(self, store: RolloutStore, publisher: Log, limiter: KeyLimiter) -> None:
        self._store = store
        self._publisher = publisher
        self._limiter = limiter
        self._abandoned: set[asyncio.Task[None]] = set()

    def must_be_up(self) -> None:
        """Raise `Retry` when a record could not be written now: asking an engine would be for nothing."""
        self._publisher.must_be_up()

    async def record(self, call: ModelCallRecorded, traceparent: str | None) -> None:
        """Returns when the call is in Kafka and listed. Raises `Retry`, or a 409 when its attempt ended meanwhile."""
        started = time.perf_counter()
        key = call.rollout_id or call.call_id
        await self._publisher.publish_all([Outgoing(MODEL_CALLS, key, call, traceparent)])
        if call.rollout_id is None:
            UNBOUND_CALLS.inc()
        elif not await self._store.add_call(AttemptRef(call.rollout_id, call.attempt), call.call_id, note_of(call)):
            raise late(AttemptRef(call.rollout_id, call.attempt))
        if self._limiter.charges(call):
            self.beside(self._limiter.charge(call))
        RECORD_SECONDS.observe(time.perf_counter() - started)

    def beside(self, recording: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let a recording go on whatever becomes of the request that it belongs to; `drain` waits for it."""
        task = asyncio.create_task(recording)
        self._abandoned.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, Refusal | Retry):
            log.error("a call was not recorded", exc_info=error)

    async def drain(self) -> None:
        """Wait for what is still being recorded."""
        await asyncio.gather(*self._abandoned, return_exceptions=True)


def late(ref: AttemptRef) -> Refusal:
    """A call for an attempt that is not under way."""
    LATE_CALLS.inc()
    message = f"attempt {ref.attempt} of rollout {ref.rollout_id} is not under way: its calls are no longer taken"
    return Refusal(409, "attempt_over", message)
