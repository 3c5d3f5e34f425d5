"""The metrics of reward. A closed list."""

from prometheus_client import Counter, Gauge, Summary

SETTLED = Counter("leyden_reward_settled", "Attempts settled by this replica, redeliveries included.", ["complete"])
ASSESSED = Counter(
    "leyden_reward_assessed", "Attempts whose rewards were completed, redeliveries included.", ["status"]
)
VALUES = Summary("leyden_reward_value", "Contribution (value times weight) of single rewards.", ["rule"])
ROLLOUT_VALUES = Summary(
    "leyden_reward_rollout_value",
    "What one rule gave one rollout in all: outcome, or intermediate (AIR). Beside each other they show a hacked rule.",
    ["rule", "kind"],
)
CAPPED = Counter("leyden_reward_capped", "Rollouts in which a cap made a rule weigh less.", ["rule"])
FAILED_RULES = Counter("leyden_reward_failed_rules", "Rules that raised; never a reward of 0.", ["rule"])
OVERDUE = Counter("leyden_reward_overdue", "Attempts whose grace ran out before their evidence was complete.")
BEHIND = Gauge("leyden_reward_behind", "1 while old records are read, so that no attempt is given up.")
LATE = Counter(
    "leyden_reward_late", "Evaluations that came after their rollout was judged, redeliveries included.", ["outcome"]
)
LATE_SPANS = Counter(
    "leyden_reward_late_spans",
    "Spans, but for evaluations, that came after their attempt was judged or tried again; redeliveries included.",
)
VERDICTS = Counter("leyden_reward_verdicts", "Verdicts that judges gave, repeated ones included.", ["rule", "outcome"])
JUDGE_REQUESTS = Counter(
    "leyden_reward_judge_requests",
    "Questions to judges: answered, from the cache, malformed, failed.",
    ["rule", "outcome"],
)
JUDGE_RETRIES = Counter("leyden_reward_judge_retries", "Requests to judges that were sent again.", ["rule"])
JUDGE_SECONDS = Summary(
    "leyden_reward_judge_seconds", "Time that an answered question took, retries included.", ["rule"]
)
JUDGE_WAITING = Gauge("leyden_reward_judge_waiting", "Attempts and groups that wait for a judge, of all replicas.")
FUNCTION_SECONDS = Summary("leyden_reward_function_seconds", "Time that a batch's reward functions took together.")
FUNCTION_RETRIES = Counter("leyden_reward_function_retries", "Calls of reward functions made again.", ["rule"])
