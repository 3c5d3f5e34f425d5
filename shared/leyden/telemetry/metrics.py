"""Metrics that every service has. A service defines its own in its `metrics.py`; metrics are defined nowhere else."""

from prometheus_client import Counter, Gauge, Histogram

PUBLISHED = Counter("leyden_published_records", "Records handed to Kafka.", ["topic"])
PUBLISHED_BYTES = Counter("leyden_published_bytes", "Bytes of the values handed to Kafka.", ["topic"])
CONSUMED = Counter("leyden_consumed_records", "Records received from Kafka, duplicates included.", ["topic"])
DEAD_LETTERS = Counter("leyden_dead_letters", "Records that could not be handled.", ["topic"])
RETRIES = Counter("leyden_handler_retries", "Batches tried again after a passing fault.", ["topics"])
HANDLER_SECONDS = Histogram(
    "leyden_handler_seconds",
    "Time of one batch in its handler, retries included.",
    ["topics"],
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300),
)
CONSUMER_LAG = Gauge(
    "leyden_consumer_lag_records",
    "Records of a partition, assigned to this process, that are not handled yet.",
    ["topic", "partition"],
)
STATE_LOST = Counter(
    "leyden_state_lost",
    "Times that a partition was read again because Redis lost its state.",
    ["topic", "partition"],
)
LAG_FAILURES = Counter("leyden_lag_measurement_failures", "Times that the lag could not be measured.")
