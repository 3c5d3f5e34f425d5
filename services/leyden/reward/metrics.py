"""The metrics of reward."""

from prometheus_client import Counter, Gauge, Summary

SETTLED = Counter("leyden_reward_settled", "Attempts settled by this replica, redeliveries included.", ["complete"])
ASSESSED = Counter(
    "leyden_reward_assessed", "Attempts whose rewards were published, redeliveries included.", ["status"]
)
VALUES = Summary("leyden_reward_value", "Contribution (value times weight) of single rewards.", ["rule"])
ROLLOUT_VALUES = Summary(
    "leyden_reward_rollout_value",
    "Sum of one rule's contributions to a rollout: outcome or intermediate. Compare them to see reward hacking.",
    ["rule", "kind"],
)
CAPPED = Counter("leyden_reward_capped", "Rollouts in which a cap reduced a rule's weight.", ["rule"])
FAILED_RULES = Counter(
    "leyden_reward_failed_rules", "Rules that failed. They give no reward, not a reward of 0.", ["rule"]
)
OVERDUE = Counter("leyden_reward_overdue", "Attempts whose grace period ended before their evidence was complete.")
BEHIND = Gauge(
    "leyden_reward_behind", "1 after a start or an outage, for the grace period; attempts are not given up then."
)
READING_SECONDS = Gauge(
    "leyden_reward_reading_seconds",
    "How long attempts have been waiting until ingest and reward have read what was acknowledged before they ended.",
)
LATE = Counter("leyden_reward_late", "Evaluations received after the settlement, redeliveries included.", ["outcome"])
LATE_SPANS = Counter(
    "leyden_reward_late_spans",
    "Spans other than evaluations received after their attempt was closed, redeliveries included.",
)
VERDICTS = Counter("leyden_reward_verdicts", "Verdicts of judges, repeated ones included.", ["rule", "outcome"])
JUDGE_REQUESTS = Counter(
    "leyden_reward_judge_requests",
    "Questions to judges, by outcome: answered, cached, malformed, failed.",
    ["rule", "outcome"],
)
JUDGE_RETRIES = Counter("leyden_reward_judge_retries", "Retries of requests to judges.", ["rule"])
JUDGE_SECONDS = Summary(
    "leyden_reward_judge_seconds", "Time until a question was answered, retries included.", ["rule"]
)
JUDGE_WAITING = Gauge("leyden_reward_judge_waiting", "Attempts and groups waiting for a judge, over all replicas.")
FUNCTION_SECONDS = Summary("leyden_reward_function_seconds", "Total time of the reward functions of one batch.")
FUNCTION_RETRIES = Counter("leyden_reward_function_retries", "Retries of reward function calls.", ["rule"])
