"""Real spans of every dialect, spoiled: ingest raises on none, and what it makes of them is events that round-trip."""

import os
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_spans import hostile, sources
from leyden.events import SpanKind
from leyden.events.codec import SPANS, decode, encode
from leyden.events.otlp import SIGNAL_HEADER
from leyden.events.replies import replies_of_span
from leyden.ingest.core import decode as records
from leyden.ingest.core.event import Normalised
from leyden.ingest.core.limits import Limits
from leyden.ingest.core.normalise import RejectedSpan, normalise_traces
from leyden.ingest.dialects import DIALECTS
from leyden.ingest.dialects.logs import Skipped, normalise_logs

EXAMPLES = 5 * int(os.environ.get("LEYDEN_FUZZ", "1"))
LIMITS = Limits(10_000, 50_000)
LOG_DIALECT = "log"
SOURCES = sources()


def made_of(signal: str, value: bytes) -> list[Normalised | RejectedSpan | Skipped]:
    decoded = records.decode(value, {SIGNAL_HEADER: signal})
    found = (
        normalise_logs(decoded.logs, limits=LIMITS)
        if signal == "logs"
        else normalise_traces(decoded.traces, DIALECTS, limits=LIMITS)
    )
    return list(found)


def test_every_dialect_is_among_the_recordings() -> None:
    seen = {
        one.dialect
        for requests in SOURCES.values()
        for signal, request in requests
        for one in made_of(signal, request.SerializeToString())
        if isinstance(one, Normalised)
    }
    assert seen >= {dialect.name for dialect in DIALECTS} | {LOG_DIALECT}


@pytest.mark.parametrize("source", SOURCES)
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_spoiled_span_is_an_event_or_a_dead_letter_and_raises_nothing(source: str, seed: int) -> None:
    for signal, request in SOURCES[source]:
        for one in made_of(signal, hostile(request, Random(seed))):
            if isinstance(one, Normalised):
                event = decode(SPANS, one.value)
                assert encode(event) == one.value
                assert event.kind in SpanKind  # type: ignore[attr-defined]
                replies_of_span(event)  # type: ignore[arg-type]
