"""Span processor: sends ended spans to the gateway, and counts the acknowledged ones of each open rollout.

`on_end` queues a span; one thread sends batches and records the result of each span; `settle` waits for the spans of
one rollout. OpenTelemetry's `BatchSpanProcessor` does not report the result of a span, and the reward service waits for
exactly as many spans as the rollout's end announces. Only spans of rollouts are sent. Ending a span never blocks: when
the queue is full (in spans or bytes), the span is dropped and counted.
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
from leyden.client.session import SpanStats
from leyden.client.span_text import encodable
from leyden.ids import attempt_of_trace

logger = logging.getLogger("leyden.client")

BATCH_BYTES = 4 * 2**20
"""Approximate size limit of one request; a single larger span is still sent."""
Send = Callable[[bytes], int]
"""Delivers an OTLP request and returns the number of rejected spans. Raises `GatewayError`."""


@dataclass
class SpanCount:
    """Counts of the spans of one rollout."""

    ended: int = 0
    acknowledged: int = 0
    lost: int = 0

    @property
    def value(self) -> int | None:
        """Number of acknowledged spans; None if one was lost or is not acknowledged yet."""
        return self.acknowledged if self.acknowledged == self.ended else None

    @property
    def decided(self) -> bool:
        """Whether every ended span was acknowledged or lost."""
        return self.acknowledged + self.lost == self.ended


class RolloutSpanProcessor(SpanProcessor):
    """A bounded queue and one daemon thread, started with the first span.

    `inherited_trace` is the trace id of the attempt that this process was started in, if any: then spans of all traces
    are sent (their resource names the attempt) and counted for that attempt.
    """

    def __init__(
        self,
        send: Send,
        capacity: int = 8192,
        batch: int = 512,
        delay_s: float = 1.0,
        capacity_bytes: int = 64 * 2**20,
        inherited_trace: str | None = None,
    ) -> None:
        self._send = send
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._batch = batch
        self._delay_s = delay_s
        self._inherited_trace = inherited_trace
        self._reported = False
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[tuple[ReadableSpan, int]] = deque()
        self._bytes = 0
        self._sent = self._dropped = self._failed = 0
        self._counts: dict[str, SpanCount] = {}
        self._flush_now = False
        self._closed = False
        self._idle = True
        self._worker: threading.Thread | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span of a rollout; ignore any other."""
        trace = self._trace_of(span)
        if trace is None or not (span.context and span.context.trace_flags.sampled):
            return
        size = size_of(span)
        with self._changed:
            count = self._counts.get(trace)
            if count:
                count.ended += 1
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

    def track(self, trace_id: str) -> None:
        """Start counting the spans of this trace."""
        with self._changed:
            self._counts.setdefault(trace_id, SpanCount())

    def settle(self, trace_id: str, timeout_s: float) -> int | None:
        """Flush and stop counting. Returns the number of acknowledged spans; None if one was lost or time ran out."""
        with self._changed:
            count = self._counts.get(trace_id)
            if count is None:
                return None
            self._flush_now = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: count.decided, timeout_s)
            self._counts.pop(trace_id, None)
            return count.value

    def count(self, trace_id: str) -> int | None:
        """Acknowledged spans of a tracked trace; None when some were not acknowledged, or it is not tracked."""
        with self._changed:
            count = self._counts.get(trace_id)
            return count.value if count else None

    def stats(self) -> SpanStats:
        """Counts of all spans so far."""
        with self._changed:
            return SpanStats(len(self._queue), self._sent, self._dropped, self._failed)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is queued. Returns whether all was sent in time."""
        with self._changed:
            self._flush_now = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._idle and not self._queue, timeout_millis / 1000)

    def shutdown(self) -> None:
        """Accept no more spans. Flush first: what is queued is not waited for."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def after_fork(self) -> None:
        """In a forked child: the parent sends what is queued."""
        self._reset()

    def _start(self) -> None:
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="leyden-spans", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        while spans := self._next_batch():
            try:
                rejected = self._send(encode_spans([encodable(span) for span in spans]).SerializeToString())
            except GatewayError as error:
                self._settle_batch(spans, str(error))
            except Exception as error:  # noqa: BLE001 - a span that cannot be encoded must not end the thread
                self._settle_batch(spans, f"{type(error).__name__}: {error}")
            else:
                self._settle_batch(spans, f"the gateway rejected {rejected} spans" if rejected else None)

    def _next_batch(self) -> list[ReadableSpan]:
        """Wait for the next batch; empty when closed."""
        with self._changed:
            self._idle = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._queue or self._closed)
            self._changed.wait_for(
                lambda: self._flush_now or self._closed or len(self._queue) >= self._batch, self._delay_s
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
                self._flush_now = False
            return spans

    def _settle_batch(self, spans: Sequence[ReadableSpan], problem: str | None) -> None:
        with self._changed:
            if problem is not None:
                self._failed += len(spans)
                self._lose(spans, problem)
            else:
                self._reported = False
                self._sent += len(spans)
                for span in spans:
                    if count := self._counts.get(self._trace_of(span) or ""):
                        count.acknowledged += 1
            self._changed.notify_all()

    def _lose(self, spans: Sequence[ReadableSpan], problem: str | None) -> None:
        if problem is not None and not self._reported:
            logger.error("spans are being lost (logged once until sending works again): %s", problem)
            self._reported = True
        for span in spans:
            if count := self._counts.get(self._trace_of(span) or ""):
                count.lost += 1

    def _trace_of(self, span: ReadableSpan) -> str | None:
        """The trace id of the attempt that the span is counted for; None for a span outside of rollouts."""
        return trace_of(span) or self._inherited_trace


def trace_of(span: ReadableSpan) -> str | None:
    """The span's trace id when it is that of a rollout's attempt."""
    trace = format_trace_id(span.context.trace_id) if span.context else ""
    return trace if attempt_of_trace(trace) else None


def size_of(span: ReadableSpan) -> int:
    """Approximate size in bytes: texts, plus 100 for each attribute and event."""
    return _size(span.attributes) + sum(100 + _size(event.attributes) for event in span.events)


def _size(attributes: Mapping[str, Any] | None) -> int:
    values = attributes.values() if attributes else ()
    return sum(100 + (len(value) if isinstance(value, str | bytes | tuple) else 0) for value in values)
