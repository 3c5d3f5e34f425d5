"""The metrics of reward. A closed list."""

from prometheus_client import Counter, Gauge, Summary

SETTLED = Counter("leyden_reward_settled", "Attempts settled by this replica, redeliveries included.", ["complete"])
ASSESSED = Counter(
    "leyden_reward_assessed", "Attempts whose rewards were completed, redeliveries included.", ["status"]
)
VALUES = Summary("leyden_reward_value", "Contribution (value times weight) of single rewards.", ["rule"])
FAILED_RULES = Counter("leyden_reward_failed_rules", "Rules that raised; never a reward of 0.", ["rule"])
OVERDUE = Counter("leyden_reward_overdue", "Attempts whose grace ran out before their evidence was complete.")
BEHIND = Gauge("leyden_reward_behind", "1 while old records are read, so that no attempt is given up.")
