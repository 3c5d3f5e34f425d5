"""Rewards: `rewards.v1`."""

from typing import Literal

from pydantic import Field

from leyden.events.base import OfAttempt, Record


class Evidence(Record):
    """What a reward was given for."""

    kind: Literal["rollout", "call", "span"]
    id: str


class RewardAssigned(OfAttempt):
    """One rule gave one reward. The contribution to the return is `value * weight`, already capped by the rule."""

    type: Literal["reward-assigned"] = "reward-assigned"
    rule: str
    name: str
    """The named signal, such as `outcome` or `tool_status`."""
    value: float
    weight: float = 1.0
    evidence: Evidence
    call_id: str | None = None
    """The model call whose action earned it; None for a reward of the whole rollout."""


class RewardsCompleted(OfAttempt):
    """All rewards of an attempt are known, and are exactly these; none at all means that nothing judged it."""

    type: Literal["rewards-completed"] = "rewards-completed"
    reward_ids: list[str]
    """Event ids of the attempt's `RewardAssigned`, sorted."""
    failed_rules: list[str] = Field(default_factory=list)
    """`rule: reason` of rules that raised; a rule that failed is never a reward of 0."""
