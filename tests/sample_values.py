"""What a Prometheus metric stands at."""

from prometheus_client.metrics import MetricWrapperBase


def value_of(metric: MetricWrapperBase) -> float:
    """Of a counter or gauge without labels, or of one child of it (`METRIC.labels(…)`)."""
    [family] = metric.collect()
    return float(family.samples[0].value)
