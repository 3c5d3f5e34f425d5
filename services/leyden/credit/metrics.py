"""The metrics of credit: a closed list. A redelivered record counts again; exact numbers are in the log."""

from prometheus_client import Counter, Gauge

LEFT_OUT = Counter("leyden_credit_left_out_rollouts", "Rollouts left out of training.", ["reason"])
"""`reason` is the part before the colon: see `core.reasons.Reason`."""
GROUPS = Counter("leyden_credit_groups", "Groups credited.", ["policy"])
ZERO_VARIANCE = Counter("leyden_credit_zero_variance_groups", "Groups whose advantages are all 0.", ["policy"])
SEQUENCES = Counter("leyden_credit_sequences", "Training sequences published.", ["policy"])
TOO_LONG = Counter("leyden_credit_too_long_sequences", "Sequences longer than max_sequence_tokens.", ["policy"])
CALLS = Counter("leyden_credit_calls", "Model calls by how they were used.", ["how"])
"""started, extended, parallel, forked (see `core.merge.Joined`), or why a call is context (see `core.actions.Context`);
and truncated or too_long if the limit on a sequence changed it (see `core.overlong.Fitted`).
The share of turns that extend exactly is extended / (extended + forked)."""
ABANDONED = Counter("leyden_credit_abandoned_attempts", "Attempts dropped because the rollout is retried.")
CLOSED = Counter("leyden_credit_closed_groups", "Groups closed by this replica, by `GroupClosing`.", ["by"])
LATE_MEMBERS = Counter("leyden_credit_late_members", "Rollouts that ended after their group was closed; never trained.")
LATE_REWARDS = Counter("leyden_credit_late_rewards", "Revisions of rewards: revised, or past_horizon.", ["outcome"])
OPEN = Gauge("leyden_credit_open", "Attempts and groups that are not finished.", ["what"])
OLDEST = Gauge("leyden_credit_oldest_open_seconds", "Age of the oldest open attempt or group.", ["what"])
AGED_OUT = Counter("leyden_credit_aged_out", "Attempts and groups forgotten because they never completed.", ["what"])
BEHIND = Gauge("leyden_credit_behind", "1 after a start or a long reading of the log; deadlines are on hold.")
