"""Events of `rewards.v1` and `verdicts.v1`."""

from typing import Literal

from pydantic import Field

from leyden.events.base import OfAttempt, Record


class Evidence(Record):
    """What a reward is based on."""

    kind: Literal["rollout", "call", "span"]
    id: str


class RewardAssigned(OfAttempt):
    """A reward given by one rule. It adds `value * weight` to the return; caps are already applied to `weight`."""

    type: Literal["reward-assigned"] = "reward-assigned"
    rule: str
    name: str
    """Name of the signal, such as `outcome` or `tool_status`."""
    value: float
    weight: float = 1.0
    evidence: Evidence
    call_id: str | None = None
    """Id of the rewarded model call; None if the reward is for the whole rollout."""


class RewardsCompleted(OfAttempt):
    """The complete list of an attempt's rewards. Empty if no rule gave a reward."""

    type: Literal["rewards-completed"] = "rewards-completed"
    reward_ids: list[str]
    """Event ids of the attempt's `RewardAssigned`, sorted."""
    revision: int = Field(default=0, ge=0)
    """Incremented when a reward arrives late. The newest revision lists all rewards, including earlier ones."""
    failed_rules: list[str] = Field(default_factory=list)
    """`rule: reason` for each rule that failed. A failed rule gives no reward, not a reward of 0."""
    outcome_missing: bool = False
    """Whether rules for the outcome are configured and none of them gave a reward. Such a rollout is not trained."""
    late_horizon_s: float = Field(default=0.0, ge=0, le=1e9)
    """How long after the attempt's end a late reward makes another revision, in seconds; 0: none does."""


class Judgement(Record):
    """One score given by a judge, and what it is for."""

    name: str
    value: float = Field(allow_inf_nan=False)
    evidence: Evidence
    call_id: str | None = None
    """Id of the judged model call; None for the whole rollout."""


class VerdictRecorded(OfAttempt):
    """A judge's scores for an attempt. Recorded because a judge model may answer differently next time; replays use it.

    Valid only for a rule with the same `settings_hash`; if the rule's settings change, the judge is asked again.
    """

    type: Literal["verdict-recorded"] = "verdict-recorded"
    rule: str
    settings_hash: str
    judgements: list[Judgement] = Field(default_factory=list)
    """Empty if the judge gave no score."""
    failure: str | None = None
    """`<kind>: <message>` if the judge failed finally. This is not a score of 0."""
    model: str | None = None
    explanation: str = ""
