"""Training data: `transitions.v1`, keyed by group."""

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from leyden.events.base import Event, OfAttempt, PackedFloats, PackedInts, Record


class Transition(Record):
    """One model call as (state, action, reward, next state), as a span over its sequence's tokens.

    State is `token_ids[:start]`, action is `token_ids[start:end]`, the next state ends at the next `start`.
    """

    call_id: str
    choice: int = 0
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    policy_version: int
    temperature: float
    reward: float
    """Immediate reward: what the rules gave for this call alone."""
    return_: float = Field(alias="return")
    advantage: float
    agent_name: str | None = None
    """Which agent of the rollout made the call, when known."""
    value: float | None = None
    """The estimated value of the state, where the credit strategy used one."""
    origin: str
    """Where the call was first recorded: `topic/partition/offset`."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


class SequenceCredited(OfAttempt):
    """One training sequence: the consecutive calls of one lineage, with their credit.

    A rollout gives one sequence per lineage: calls whose prompt exactly extends what came before share one.
    All sequences of a group are published together, followed by the group's `GroupCredited`.
    """

    type: Literal["sequence-credited"] = "sequence-credited"
    policy: str
    credit: str = ""
    """Name of the credit service that made it; empty for the unnamed one."""
    revision: int = Field(default=0, ge=0)
    """Counts up when a late reward changed the group. A group is trained once, at its newest revision."""
    group_id: str
    group_sequences: int = Field(ge=1)
    sequence_index: int = Field(ge=0)
    """Position among the group's sequences: 0 … group_sequences - 1."""
    token_ids: PackedInts
    behaviour_logprobs: PackedFloats
    """One per token; 0 outside the actions."""
    transitions: list[Transition]
    rollout_reward: float


class GroupClosing(StrEnum):
    """Why a group takes no further member."""

    COMPLETE = "complete"
    """All its rollouts are over."""
    QUOTA = "quota"
    """As many rollouts as were asked for are over; the group was over-provisioned."""
    DEADLINE = "deadline"
    """Some of its rollouts did not end in time."""


class GroupClosed(Event):
    """A group has exactly these members; the first such event of a group is the one that counts.

    Whether a member came in time depends on the clock, so it is recorded; a replay follows the record.
    """

    type: Literal["group-closed"] = "group-closed"
    credit: str = ""
    group_id: str
    rollout_ids: list[str]
    """Sorted."""
    reason: GroupClosing = GroupClosing.COMPLETE


class GroupCredited(Event):
    """A group is complete: every member was credited or left out. Follows the group's sequences in their partition.

    `sequences` is 0 when no member could be trained; consumers that count groups still count it.
    """

    type: Literal["group-credited"] = "group-credited"
    policy: str
    credit: str = ""
    """Name of the credit service that made it; empty for the unnamed one."""
    revision: int = Field(default=0, ge=0)
    """That of all its sequences."""
    group_id: str
    sequences: int = Field(ge=0)
    members: int = Field(ge=0)
    """Rollouts whose return entered the baseline."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Rollout id → reason, for members that gave nothing."""
    reward_mean: float = 0.0
    reward_std: float = 0.0
    zero_variance: bool = False
    closed_by: GroupClosing = GroupClosing.COMPLETE
