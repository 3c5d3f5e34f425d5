"""All Prometheus metrics of the trainer."""

from prometheus_client import Counter, Gauge

VERSION = Gauge("leyden_trainer_version", "Policy version made by the last step.", ["policy"])
WAITING = Gauge("leyden_trainer_waiting_groups", "Complete groups waiting for a batch.", ["policy"])
STEPS = Counter("leyden_trainer_steps", "Steps by this process that changed weights.", ["policy"])
DROPPED = Counter("leyden_trainer_dropped_groups", "Groups dropped without training, by reason.", ["policy", "reason"])
"""`reason`: see `core.batching.Dropped`."""
STEP = Gauge("leyden_trainer_step", "Metrics of the last step, named as in `StepMetric`.", ["policy", "metric"])
