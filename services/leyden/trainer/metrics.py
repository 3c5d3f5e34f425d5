"""All Prometheus metrics of the trainer."""

from prometheus_client import Counter, Gauge

VERSION = Gauge("leyden_trainer_version", "Policy version made by the last step.", ["policy"])
WAITING = Gauge("leyden_trainer_waiting_groups", "Complete groups waiting for a batch.", ["policy"])
STEPS = Counter("leyden_trainer_steps", "Optimiser steps made by this process.", ["policy"])
DROPPED = Counter("leyden_trainer_dropped_groups", "Groups dropped without training, by reason.", ["policy", "reason"])
"""stale, zero_variance, empty, malformed; revised_after_training: the revision arrived after its group was trained."""
STEP = Gauge("leyden_trainer_step", "Metrics of the last step, named as in `StepMetric`.", ["policy", "metric"])
