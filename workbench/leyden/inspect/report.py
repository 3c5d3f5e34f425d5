"""The report on one attempt of a rollout, as data that prints as JSON; layout is the command's."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from leyden.events import Json


class Line(BaseModel):
    """A part of the report."""

    model_config = ConfigDict(frozen=True)


class Asked(Line):
    """A call of a tool that the model asked for."""

    id: str | None
    name: str
    arguments: str
    """As the model wrote them."""


class Said(Line):
    """One message of a prompt, or an answer."""

    role: str
    text: str
    reasoning: str | None = None
    tool_calls: list[Asked] = []
    answers: str | None = None
    """Id of the tool call that it answers."""


class Trained(Line):
    """Credit of one sampled response of a call, by one credit service."""

    credit: str
    policy: str
    choice: int
    lineage: int
    """Index of its sequence in the rollout."""
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
    prompt: list[Said]
    new_from: int
    """Index of the first message of `prompt` that the call before and its answer do not have."""
    answers: list[Said]
    """By choice."""
    trained: list[Trained]
    left_out: str | None
    """Why nothing of it is trained; None if it is trained or not decided yet."""


class ToolLine(Line):
    """One execution of a tool."""

    name: str
    status: str
    error: str | None
    seconds: float
    asked_by: int | None
    """Index of the call that asked for it, if known."""
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
    """`call 2`, `tool search`, `rollout`, or kind and id if it was not found."""
    call: int | None
    """Index of its call; None for a reward of the whole rollout."""
    counted: bool
    """Whether the newest `RewardsCompleted` names it."""


class CreditLine(Line):
    """The rollout's credit for one policy, by one credit service."""

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
    """The report on one attempt."""

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
    """Why something was left out, and what is still missing: one sentence each."""
