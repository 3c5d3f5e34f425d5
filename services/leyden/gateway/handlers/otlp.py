"""Writes OTLP export requests to the log: checks, keys and splits them; accepts them once Kafka has everything."""

import asyncio
from dataclasses import dataclass, replace

from leyden.events.codec import OTLP
from leyden.events.otlp import (
    ATTEMPT_BY_HEADER,
    ATTEMPT_HEADER,
    CONTENT_TYPE_HEADER,
    PROJECT_HEADER,
    SIGNAL_HEADER,
    AttemptBy,
    Signal,
)
from leyden.events.wellformed import well_formed_json
from leyden.gateway.core.keys import Caller
from leyden.gateway.core.otlp.look import look, rollouts_named
from leyden.gateway.core.otlp.split import split
from leyden.gateway.core.refusals import Refusal
from leyden.gateway.core.request import bind
from leyden.gateway.handlers.ownership import Ownership
from leyden.gateway.metrics import OTLP_ITEMS, OTLP_NOT_KEPT, TRACE_BYTES
from leyden.gateway.ports import Log
from leyden.ids import AttemptRef


@dataclass(frozen=True, slots=True)
class Export:
    """A decompressed export request."""

    signal: Signal
    content_type: str
    body: bytes
    caller: Caller
    attempt: AttemptRef | None = None
    """The attempt in the URL or the session header."""


def attempt_of(caller: Caller, path_id: str | None, session: str | None) -> AttemptRef | None:
    """The attempt that the request names. Raises a `Refusal` if it is invalid or not the caller's."""
    if path_id is None and not session:
        return None
    return bind(path_id, caller, None, session).attempt


class OtlpHandler:
    """Handles export requests of HTTP and gRPC."""

    def __init__(self, log: Log, record_bytes: int, ownership: Ownership) -> None:
        self._log = log
        self._ownership = ownership
        self._record_bytes = record_bytes

    def must_be_up(self) -> None:
        """Raise `Retry` while Kafka is known to be unavailable, before the body is read."""
        self._log.must_be_up()

    async def take(self, export: Export) -> None:
        """Return once Kafka has acknowledged the whole request. Raises `Refusal`, or `Retry` if it did not."""
        if export.signal is Signal.METRICS:
            OTLP_NOT_KEPT.inc(len(export.body))
            return
        try:
            await self._publish(export)
        except Refusal as refusal:
            if refusal.code != "invalid_json":
                raise
            body = await asyncio.to_thread(well_formed_json, export.body)
            await self._publish(replace(export, body=body))

    async def _must_be_theirs(self, export: Export) -> None:
        """Raise a 403 if a key of a project sends anything that names a rollout of another project."""
        if export.caller.project is None:
            return
        named = await asyncio.to_thread(rollouts_named, export.content_type, export.body)
        if export.attempt is not None:
            named.add(export.attempt.rollout_id)
        for rollout_id in sorted(named):
            await self._ownership.must_be_theirs(export.caller, rollout_id)

    async def _publish(self, export: Export) -> None:
        await self._must_be_theirs(export)
        records = [export.body]
        if len(export.body) > self._record_bytes:
            records = await asyncio.to_thread(
                split, export.signal, export.content_type, export.body, self._record_bytes
            )
        seen = [look(export.signal, export.content_type, record) for record in records]
        items = sum(one.items for one in seen)
        if not items:
            return
        attempt = export.caller.attempt or export.attempt
        key = attempt.trace_id if attempt else next((one.trace_id for one in seen if one.trace_id), "")
        headers = _headers(export)
        if len(records) == 1:  # the usual case, without a task
            await self._log.publish_raw(OTLP, key, records[0], headers)
        else:
            await asyncio.gather(*(self._log.publish_raw(OTLP, key, record, headers) for record in records))
        OTLP_ITEMS.labels(signal=export.signal).inc(items)
        TRACE_BYTES.inc(len(export.body))


def _headers(export: Export) -> dict[str, str]:
    headers = {CONTENT_TYPE_HEADER: export.content_type, SIGNAL_HEADER: str(export.signal)}
    if export.caller.project:
        headers[PROJECT_HEADER] = export.caller.project
    if export.caller.attempt:
        headers |= {ATTEMPT_HEADER: export.caller.attempt.trace_id, ATTEMPT_BY_HEADER: AttemptBy.KEY}
    elif export.attempt:
        headers |= {ATTEMPT_HEADER: export.attempt.trace_id, ATTEMPT_BY_HEADER: AttemptBy.URL}
    return headers
