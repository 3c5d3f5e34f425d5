"""The trainer's Prometheus metrics: a closed list."""

from prometheus_client import Counter, Gauge

VERSION = Gauge("leyden_trainer_version", "Version that the last step made.", ["policy"])
WAITING = Gauge("leyden_trainer_waiting_groups", "Complete groups that wait for a batch.", ["policy"])
STEPS = Counter("leyden_trainer_steps", "Optimiser steps made by this process.", ["policy"])
DROPPED = Counter("leyden_trainer_dropped_groups", "Groups that were not trained, by reason.", ["policy", "reason"])
"""stale, zero_variance, empty, malformed; revised_after_training: a revision that came after its group was trained."""
STEP = Gauge("leyden_trainer_step", "The last step's numbers; names are those of `StepMetric`.", ["policy", "metric"])
