"""Ended spans on their way to the gateway, and the count of those that it has acknowledged for each open rollout.

Unlike OpenTelemetry's `BatchSpanProcessor` it knows what became of each span (the reward service waits for exactly as
many as we announce), its flush of one rollout has a time limit, and it sends only spans of rollouts: an agent's other
traces are none of ours. Ending a span never blocks; when the queue is full (of spans, or of bytes), the span is dropped
and counted as lost.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import format_trace_id

from leyden.client.errors import GatewayError
from leyden.client.span_stats import SpanStats
from leyden.ids import attempt_of_trace

logger = logging.getLogger("leyden.client")

BATCH_BYTES = 4 * 2**20
"""About what one request may carry; a single span may be larger."""
Send = Callable[[bytes], int]
"""Delivers an OTLP request; the number of spans rejected. Raises `GatewayError` when it was not delivered."""


@dataclass
class Tally:
    """What became of one rollout's spans."""

    ended: int = 0
    acknowledged: int = 0
    lost: int = 0

    @property
    def count(self) -> int | None:
        """How many the gateway has, or None when one was lost or is under way."""
        return self.acknowledged if self.acknowledged == self.ended else None

    @property
    def decided(self) -> bool:
        """Whether the fate of every ended span is known."""
        return self.acknowledged + self.lost == self.ended


class Outbox(SpanProcessor):
    """A bounded queue and one daemon thread, which starts with the first span.

    `home` is the attempt that this whole process belongs to, when it was started inside of one: then spans of any trace
    are sent (their resource names the attempt) and are counted for it.
    """

    def __init__(
        self,
        send: Send,
        capacity: int = 8192,
        batch: int = 512,
        delay_s: float = 1.0,
        capacity_bytes: int = 64 * 2**20,
        home: str | None = None,
    ) -> None:
        self._send = send
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._batch = batch
        self._delay_s = delay_s
        self._home = home
        self._failing = False
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[tuple[ReadableSpan, int]] = deque()
        self._bytes = 0
        self._sent = self._dropped = self._failed = 0
        self._tallies: dict[str, Tally] = {}
        self._hurry = False
        self._closed = False
        self._idle = True
        self._worker: threading.Thread | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span of a rollout; any other is left alone."""
        trace = self._trace_of(span)
        if trace is None or not (span.context and span.context.trace_flags.sampled):
            return
        size = size_of(span)
        with self._changed:
            tally = self._tallies.get(trace)
            if tally:
                tally.ended += 1
            full = len(self._queue) >= self._capacity or self._bytes + size > self._capacity_bytes
            if self._closed or full:
                self._dropped += 1
                self._lose([span], None if self._closed else "the queue is full")
                return
            self._queue.append((span, size))
            self._bytes += size
            self._start()
            if len(self._queue) in (1, self._batch):
                self._changed.notify_all()

    def open(self, trace_id: str) -> None:
        """Count the spans of this trace from now on."""
        with self._changed:
            self._tallies.setdefault(trace_id, Tally())

    def settle(self, trace_id: str, timeout_s: float) -> int | None:
        """Send now and stop counting: how many spans were acknowledged; None when one was lost or time ran out."""
        with self._changed:
            tally = self._tallies.get(trace_id)
            if tally is None:
                return None
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: tally.decided, timeout_s)
            self._tallies.pop(trace_id, None)
            return tally.count

    def count(self, trace_id: str) -> int | None:
        """How many spans of an open trace were acknowledged; None when some were not, or it is not open."""
        with self._changed:
            tally = self._tallies.get(trace_id)
            return tally.count if tally else None

    def stats(self) -> SpanStats:
        """What became of the spans so far."""
        with self._changed:
            return SpanStats(len(self._queue), self._sent, self._dropped, self._failed)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send everything now; whether it was done in time."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._idle and not self._queue, timeout_millis / 1000)

    def shutdown(self) -> None:
        """Take no more spans. What is queued is not waited for: flush first."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def after_fork(self) -> None:
        """In a forked child: what is queued is the parent's to send."""
        self._reset()

    def _start(self) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="leyden-outbox", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        while spans := self._next_batch():
            try:
                rejected = self._send(encode_spans(spans).SerializeToString())
            except GatewayError as error:
                self._settle_batch(spans, str(error))
            except Exception as error:  # noqa: BLE001 - this thread must outlive any span that cannot be encoded
                self._settle_batch(spans, f"{type(error).__name__}: {error}")
            else:
                self._settle_batch(spans, f"the gateway rejected {rejected} spans" if rejected else None)

    def _next_batch(self) -> list[ReadableSpan]:
        """Waits until there is something to send and it is time; empty when closed."""
        with self._changed:
            self._idle = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._queue or self._closed)
            self._changed.wait_for(
                lambda: self._hurry or self._closed or len(self._queue) >= self._batch, self._delay_s
            )
            spans: list[ReadableSpan] = []
            taken = 0
            while self._queue and len(spans) < self._batch and (not spans or taken + self._queue[0][1] <= BATCH_BYTES):
                span, size = self._queue.popleft()
                taken += size
                spans.append(span)
            self._bytes -= taken
            self._idle = False
            if not self._queue:
                self._hurry = False
            return spans

    def _settle_batch(self, spans: Sequence[ReadableSpan], problem: str | None) -> None:
        with self._changed:
            if problem is not None:
                self._failed += len(spans)
                self._lose(spans, problem)
            else:
                self._failing = False
                self._sent += len(spans)
                for span in spans:
                    if tally := self._tallies.get(self._trace_of(span) or ""):
                        tally.acknowledged += 1
            self._changed.notify_all()

    def _lose(self, spans: Sequence[ReadableSpan], problem: str | None) -> None:
        if problem is not None and not self._failing:
            logger.error("spans are being lost (said once until it works again): %s", problem)
            self._failing = True
        for span in spans:
            if tally := self._tallies.get(self._trace_of(span) or ""):
                tally.lost += 1

    def _trace_of(self, span: ReadableSpan) -> str | None:
        """The trace id of the attempt that the span is sent and counted for."""
        return trace_of(span) or self._home


def trace_of(span: ReadableSpan) -> str | None:
    """The span's trace id when it is that of a rollout's attempt."""
    trace = format_trace_id(span.context.trace_id) if span.context else ""
    return trace if attempt_of_trace(trace) else None


def size_of(span: ReadableSpan) -> int:
    """About how many bytes the span takes: its texts, and a hundred for each attribute and event."""
    return _size(span.attributes) + sum(100 + _size(event.attributes) for event in span.events)


def _size(attributes: Mapping[str, Any] | None) -> int:
    values = attributes.values() if attributes else ()
    return sum(100 + (len(value) if isinstance(value, str | bytes | tuple) else 0) for value in values)
