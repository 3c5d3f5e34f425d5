"""The metrics of credit: a closed list. Redelivery counts again; the log is the exact record, these are its pulse."""

from prometheus_client import Counter

LEFT_OUT = Counter("leyden_credit_left_out_rollouts", "Rollouts that gave nothing to train on.", ["reason"])
"""`reason` is the part before the colon: see `core.rules.Reason`."""
GROUPS = Counter("leyden_credit_groups", "Groups credited.", ["policy"])
ZERO_VARIANCE = Counter("leyden_credit_zero_variance_groups", "Groups whose returns are all the same.", ["policy"])
SEQUENCES = Counter("leyden_credit_sequences", "Training sequences published.", ["policy"])
TOO_LONG = Counter("leyden_credit_too_long_sequences", "Sequences longer than the limit, not published.", ["policy"])
CALLS = Counter("leyden_credit_calls", "Model calls by how they were used.", ["how"])
"""started, extended, parallel, forked (see `core.merge.Joined`) or why a call is context (see `core.actions.Context`).
The share of turns that extend exactly is extended / (extended + forked)."""
ABANDONED = Counter("leyden_credit_abandoned_attempts", "Attempts fenced off because the rollout is tried again.")
