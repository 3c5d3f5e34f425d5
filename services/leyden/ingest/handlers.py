"""Decodes OTLP requests, normalises their spans and publishes them. Interpreting spans is the dialects' work."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from leyden.clock import Clock
from leyden.events.codec import OTLP, SPANS
from leyden.events.otlp import CONTENT_TYPE_HEADER, AttemptBy, Signal
from leyden.ingest import metrics
from leyden.ingest.core.binding import Admission
from leyden.ingest.core.decode import BadItem, UnreadableError, decode
from leyden.ingest.core.dialect import Dialect
from leyden.ingest.core.event import Normalised
from leyden.ingest.core.limits import Limits
from leyden.ingest.core.normalise import RejectedSpan, normalise_traces
from leyden.ingest.dialects.logs import Skipped, normalise_logs
from leyden.kafka.delivered import ERROR_HEADER, ORIGIN_HEADER, Delivered, Outgoing, Publisher
from leyden.kafka.topics import DEAD_LETTER_SUFFIX

log = logging.getLogger(__name__)
FUTURE_NANO = 3600 * 10**9
"""A span that ends later than this after now comes from a wrong clock. In nanoseconds."""
REMEMBERED = 65_536
"""How many recent spans are remembered to count duplicates."""


@dataclass
class _BatchResult:
    """The result of a batch."""

    spans: dict[str, Outgoing] = field(default_factory=dict)
    refused: list[tuple[Delivered[bytes], RejectedSpan | BadItem]] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    let_go: Counter[str] = field(default_factory=Counter)
    unbound: int = 0
    duplicates: int = 0
    before_parent: int = 0
    unfinished: dict[str, str] = field(default_factory=dict)
    """Event id of an unfinished span → that of the finished one."""
    waited_for: Counter[str] = field(default_factory=Counter)
    """Span ids of parents not seen yet → number of their children seen."""

    def drop_replaced(self) -> None:
        """Drop unfinished spans whose finished span is in the batch too."""
        for event_id, finished_id in self.unfinished.items():
            if finished_id in self.spans:
                del self.spans[event_id]
                self.duplicates += 1


class _RecentIds:
    """Remembers a bounded number of recent ids. Used for a metric only."""

    def __init__(self, at_least: int) -> None:
        self._at_least = at_least
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def again(self, ids: Set[str]) -> int:
        """Count how many of `ids` were added before, and add them."""
        known = len(ids & self._newer) + len((ids & self._older) - self._newer)
        self._newer |= ids
        if len(self._newer) >= self._at_least:
            self._older, self._newer = self._newer, set()
        return known


class IngestHandlers:
    """Stateless: the same requests always give the same events. Recent ids and the clock serve metrics only."""

    def __init__(
        self,
        publisher: Publisher,
        dialects: Sequence[Dialect],
        clock: Clock,
        limits: Limits,
        remembered: int = REMEMBERED,
    ) -> None:
        self._publisher = publisher
        self._dialects = dialects
        self._clock = clock
        self._limits = limits
        self._seen = _RecentIds(remembered)

    async def on_otlp(self, batch: Sequence[Delivered[bytes]]) -> None:
        """Publish every span of `batch` once. Invalid items go to the dead letters one by one.

        It is never `Poison`: anybody with a key can send a run of it, and a run of `Poison` ends the process.
        """
        found = _BatchResult()
        now = int(self._clock.now().timestamp() * 1e9)
        for delivered in batch:
            self._take(delivered, found, now)
        found.drop_replaced()
        await asyncio.gather(*(self._dead_letter(delivered, bad) for delivered, bad in found.refused))
        await self._publisher.publish_all(list(found.spans.values()))
        found.duplicates += self._seen.again(found.spans.keys())
        _count(found)

    def _take(self, delivered: Delivered[bytes], found: _BatchResult, now: int) -> None:
        newest = 0
        try:
            request = decode(delivered.event, delivered.headers)
        except UnreadableError as error:
            found.refused.append((delivered, BadItem(str(error), delivered.event)))
            return
        admission = Admission(request.project, request.attempt, request.attempt_by is AttemptBy.KEY)
        traceparent = delivered.traceparent
        found.refused += [(delivered, bad) for bad in request.bad]
        found.odd["salvaged"] += request.salvaged
        for one in (
            normalise_logs(request.logs, admission, self._limits)
            if request.signal is Signal.LOGS
            else normalise_traces(request.traces, self._dialects, admission, self._limits)
        ):
            if isinstance(one, RejectedSpan):
                found.refused.append((delivered, one))
            elif isinstance(one, Skipped):
                found.let_go[one.why] += 1
            elif one.event_id in found.spans:
                found.duplicates += 1
            else:
                found.spans[one.event_id] = Outgoing(SPANS, one.key, one.value, traceparent)
                newest = max(newest, one.ended_unix_nano)
                if one.finished_id is not None:
                    found.unfinished[one.event_id] = one.finished_id
                _note(one, found, now)
        if newest:
            metrics.AGE.observe(max(now - newest, 0) / 1e9)

    async def _dead_letter(self, delivered: Delivered[bytes], bad: RejectedSpan | BadItem) -> None:
        """Send one item to the dead letters as a request of its own, with the gateway's headers, to be re-driven."""
        metrics.BAD_SPANS.inc()
        log.error("invalid item of %s sent to the dead letters: %s", delivered.origin, bad.reason)
        headers = {name: value for name, value in delivered.headers.items() if name.startswith("leyden-")}
        headers |= {ORIGIN_HEADER: delivered.origin, ERROR_HEADER: f"bad span: {bad.reason}"[:2000]}
        if isinstance(bad, BadItem) and CONTENT_TYPE_HEADER in delivered.headers:
            headers[CONTENT_TYPE_HEADER] = delivered.headers[CONTENT_TYPE_HEADER]
        await self._publisher.publish_raw(OTLP + DEAD_LETTER_SUFFIX, delivered.key, bad.request, headers)


def _note(one: Normalised, found: _BatchResult, now: int) -> None:
    found.counts[one.kind.value, one.dialect] += 1
    if one.parent_span_id is not None:
        found.waited_for[one.parent_span_id] += 1
    found.before_parent += found.waited_for.pop(one.span_id, 0)
    found.unbound += not one.bound
    if one.odd:
        found.odd.update(one.odd)
    if one.ended_unix_nano > now + FUTURE_NANO:
        found.odd["in_the_future"] += 1


def _count(found: _BatchResult) -> None:
    for (kind, dialect), count in found.counts.items():
        metrics.SPANS.labels(kind=kind, dialect=dialect).inc(count)
    for what, count in found.odd.items():
        metrics.ANOMALOUS_SPANS.labels(what=what).inc(count)
    for why, count in found.let_go.items():
        metrics.LOG_RECORDS_SKIPPED.labels(why=why).inc(count)
    metrics.UNBOUND_SPANS.inc(found.unbound)
    metrics.DUPLICATE_SPANS.inc(found.duplicates)
    metrics.EARLY_SPANS.inc(found.before_parent)
