"""The metrics of ingest. A closed list."""

from prometheus_client import Counter, Histogram

SPANS = Counter("leyden_ingest_spans", "Spans normalised, redeliveries included.", ["kind", "dialect"])
UNBOUND_SPANS = Counter("leyden_ingest_unbound_spans", "Spans that belong to no rollout; kept, keyed by their trace.")
DUPLICATE_SPANS = Counter(
    "leyden_ingest_duplicate_spans",
    "Spans that came again: in one batch (published once), or in a later one (the same event is published again; the "
    "last 65,536 or more are remembered, for this count alone).",
)
EARLY_SPANS = Counter(
    "leyden_ingest_spans_before_parent",
    "Spans that came before their parent in one batch. Most do: a span is sent when it ends. It changes nothing.",
)
BAD_SPANS = Counter("leyden_ingest_bad_spans", "Spans that cannot be read, dead-lettered without their neighbours.")
ODD_SPANS = Counter(
    "leyden_ingest_odd_spans",
    "Spans kept with a mark: cut (too large), end_before_start (the end is set to the start), in_the_future (by more "
    "than an hour; kept as it is).",
    ["what"],
)
LOGS_LET_GO = Counter(
    "leyden_ingest_logs_let_go",
    "Log records that became no event: not_evidence (no score, no message, no error), no_trace (nor a rollout).",
    ["why"],
)
AGE = Histogram(
    "leyden_ingest_request_age_seconds",
    "Of each request, how long ago its newest span had ended: what comes after its rollout was settled is late.",
    buckets=(0.1, 1, 5, 15, 60, 300, 3600, 86400),
)
