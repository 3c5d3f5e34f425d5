"""The metrics of credit: a closed list. Redelivery counts again; the log is the exact record, these are its pulse."""

from prometheus_client import Counter, Gauge

LEFT_OUT = Counter("leyden_credit_left_out_rollouts", "Rollouts that gave nothing to train on.", ["reason"])
"""`reason` is the part before the colon: see `core.rules.Reason`."""
GROUPS = Counter("leyden_credit_groups", "Groups credited.", ["policy"])
ZERO_VARIANCE = Counter("leyden_credit_zero_variance_groups", "Groups whose returns are all the same.", ["policy"])
SEQUENCES = Counter("leyden_credit_sequences", "Training sequences published.", ["policy"])
TOO_LONG = Counter("leyden_credit_too_long_sequences", "Sequences that were longer than the limit.", ["policy"])
CALLS = Counter("leyden_credit_calls", "Model calls by how they were used.", ["how"])
"""started, extended, parallel, forked (see `core.merge.Joined`) or why a call is context (see `core.actions.Context`);
beside that, truncated or too_long, where the limit on a sequence did something to it (see `core.overlong.Fitted`).
The share of turns that extend exactly is extended / (extended + forked)."""
ABANDONED = Counter("leyden_credit_abandoned_attempts", "Attempts fenced off because the rollout is tried again.")
CLOSED = Counter("leyden_credit_closed_groups", "Groups closed by this replica, by why (see `GroupClosing`).", ["by"])
LATE_MEMBERS = Counter("leyden_credit_late_members", "Rollouts that came after their group was closed; never trained.")
LATE_REWARDS = Counter("leyden_credit_late_rewards", "Revisions of rewards: revised, or past_horizon.", ["outcome"])
OPEN = Gauge("leyden_credit_open", "Attempts and groups that are not finished.", ["what"])
OLDEST = Gauge("leyden_credit_oldest_open_seconds", "Since when the oldest of them is open.", ["what"])
AGED_OUT = Counter("leyden_credit_aged_out", "Attempts and groups that nobody completed in time, forgotten.", ["what"])
BEHIND = Gauge("leyden_credit_behind", "1 while old records are read, so that no group is closed by its deadline.")
