"""The report on one attempt of a rollout, as plain data that prints as JSON. Says nothing of its looks."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from leyden.events import Json


class Line(BaseModel):
    """A part of the report."""

    model_config = ConfigDict(frozen=True)


class Trained(Line):
    """What one credit service made of one sampled response of a call."""

    credit: str
    policy: str
    choice: int
    lineage: int
    """Which of the rollout's sequences it is in."""
    tokens: int
    """Tokens that are trained."""
    context_tokens: int
    """Tokens before them in the sequence: the state."""
    reward: float
    return_: float
    advantage: float
    value: float | None


class CallLine(Line):
    """One model call."""

    index: int
    call_id: str
    started_at: datetime
    agent: str | None
    policy: str | None
    policy_version: int | None
    prompt_tokens: int
    response_tokens: list[int]
    """By choice."""
    finish: list[str | None]
    latency_s: float
    error: str | None
    trained: list[Trained]
    left_out: str | None
    """Why nothing of it is trained; None when it is, or when that is not decided yet."""


class ToolLine(Line):
    """One execution of a tool."""

    name: str
    status: str
    error: str | None
    seconds: float
    asked_by: int | None
    """Index of the call that gave it its id, where one did."""
    arguments: Json
    result: Json


class RewardLine(Line):
    """One reward."""

    rule: str
    name: str
    value: float
    weight: float
    contribution: float
    evidence: str
    """`call 2`, `tool search`, `rollout`, or kind and id of what was not found."""
    call: int | None
    """Index of the call that earned it; None for a reward of the whole rollout."""
    counted: bool
    """Whether the newest `RewardsCompleted` names it."""


class CreditLine(Line):
    """What one credit service made of the rollout for one policy."""

    credit: str
    policy: str
    revision: int
    lineages: int
    """Sequences that the rollout gave."""
    tokens_trained: int
    tokens: int
    """Of all its sequences."""
    rollout_reward: float | None
    group_members: int
    group_sequences: int
    group_mean: float
    group_std: float
    zero_variance: bool
    closed_by: str
    left_out: str | None


class RolloutReport(Line):
    """One attempt, whole."""

    rollout_id: str
    attempt: int
    attempts: list[int]
    task_id: str | None
    mode: str | None
    task_input: Json
    group_id: str | None
    group_size: int | None
    runner: str | None
    status: str
    """running, succeeded or failed, with the failure."""
    seconds: float | None
    policy_versions: list[str]
    """`policy@version` of its calls."""
    rewards_revision: int | None
    total_reward: float | None
    calls: list[CallLine]
    tools: list[ToolLine]
    rewards: list[RewardLine]
    credits: list[CreditLine]
    notes: list[str]
    """Why anything was left out, and what is still waited for: one sentence each."""
