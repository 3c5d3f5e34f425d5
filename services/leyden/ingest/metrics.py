"""All metrics of ingest."""

from prometheus_client import Counter, Histogram

SPANS = Counter("leyden_ingest_spans", "Spans normalised, including redeliveries.", ["kind", "dialect"])
UNBOUND_SPANS = Counter(
    "leyden_ingest_unbound_spans", "Spans without a rollout. They are kept, with the trace id as key."
)
DUPLICATE_SPANS = Counter(
    "leyden_ingest_duplicate_spans",
    "Spans received again: in the same batch (published once) or later (the same event is published again). Counted "
    "among the last 65,536 spans.",
)
EARLY_SPANS = Counter(
    "leyden_ingest_spans_before_parent",
    "Spans that arrived before their parent in one batch. This is normal: spans are exported when they end.",
)
BAD_SPANS = Counter("leyden_ingest_bad_spans", "Invalid spans and log records, sent to the dead letters one by one.")
ANOMALOUS_SPANS = Counter(
    "leyden_ingest_anomalous_spans",
    "Spans kept despite an anomaly: cut (too large, truncated), end_before_start (the end is set to the start), "
    "in_the_future (more than an hour; kept unchanged), unfinished (no end: replaced by the finished span), "
    "salvaged (a value in it, its scope or its resource could not be read).",
    ["what"],
)
LOG_RECORDS_SKIPPED = Counter(
    "leyden_ingest_log_records_skipped",
    "Log records that became no event: not_evidence (no score, message or error), no_trace (no trace, no rollout).",
    ["why"],
)
AGE = Histogram(
    "leyden_ingest_request_age_seconds",
    "Age of a request's newest span when it was processed. Spans that arrive after their rollout is settled are late.",
    buckets=(0.1, 1, 5, 15, 60, 300, 3600, 86400),
)
