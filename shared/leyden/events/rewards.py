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
    revision: int = Field(default=0, ge=0)
    """Counts up when a reward came late; the newest revision names all rewards, the earlier ones too."""
    failed_rules: list[str] = Field(default_factory=list)
    """`rule: reason` of rules that raised; a rule that failed is never a reward of 0."""


class Judgement(Record):
    """One number that a judge gave, and what for."""

    name: str
    value: float = Field(allow_inf_nan=False)
    evidence: Evidence
    call_id: str | None = None
    """The model call whose action is judged; None for the whole rollout."""


class VerdictRecorded(OfAttempt):
    """What a judge said of an attempt: a model's opinion comes only once, so it is evidence, and replays follow it.

    Counts for the rule only while `settings_hash` is that of the rule's settings: another judge is asked anew.
    """

    type: Literal["verdict-recorded"] = "verdict-recorded"
    rule: str
    settings_hash: str
    judgements: list[Judgement] = Field(default_factory=list)
    """Empty when the judge had no opinion."""
    failure: str | None = None
    """`<kind>: <message>` when the judge failed for good; never a judgement of 0."""
    model: str | None = None
    explanation: str = ""
