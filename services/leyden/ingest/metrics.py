"""The metrics of ingest. A closed list."""

from prometheus_client import Counter

SPANS = Counter("leyden_ingest_spans", "Spans normalised, redeliveries included.", ["kind", "dialect"])
UNBOUND_SPANS = Counter("leyden_ingest_unbound_spans", "Spans that belong to no rollout; kept, keyed by their trace.")
DUPLICATE_SPANS = Counter("leyden_ingest_duplicate_spans", "Spans that came more than once in one batch.")
BAD_SPANS = Counter("leyden_ingest_bad_spans", "Spans that cannot be read, dead-lettered without their neighbours.")
