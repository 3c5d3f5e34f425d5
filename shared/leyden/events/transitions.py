"""Events of `transitions.v1` (training data) and `groups.v1`, keyed by group."""

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from leyden.events.base import Event, OfAttempt, PackedFloats, PackedInts, Record


class Transition(Record):
    """One model call as (state, action, reward, next state): a range of its sequence's tokens.

    The state is `token_ids[:start]`, the action `token_ids[start:end]`. The next state ends at the next `start`.
    """

    call_id: str
    choice: int = 0
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    policy_version: int
    temperature: float
    reward: float
    """Immediate reward: the rewards for this call alone."""
    return_: float = Field(alias="return")
    advantage: float
    agent_name: str | None = None
    """The agent that made the call, if known."""
    value: float | None = None
    """Estimated value of the state, if the credit strategy uses one."""
    origin: str
    """`topic/partition/offset` at which the call was first recorded."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


class SequenceCredited(OfAttempt):
    """One training sequence: the consecutive calls of one lineage, with their credit.

    A rollout has one sequence per lineage. Calls whose prompt exactly extends an earlier prompt and response are in the
    same lineage. All sequences of a group are published together, followed by the group's `GroupCredited`.
    """

    type: Literal["sequence-credited"] = "sequence-credited"
    policy: str
    credit: str = ""
    """Name of the credit service that published it; empty for the unnamed one."""
    revision: int = Field(default=0, ge=0)
    """Incremented when a late reward changes the group. A group is trained once, at its newest revision."""
    group_id: str
    group_sequences: int = Field(ge=1)
    sequence_index: int = Field(ge=0)
    """Position among the group's sequences: 0 … group_sequences - 1."""
    token_ids: PackedInts
    behaviour_logprobs: PackedFloats
    """One per token; 0 for tokens outside actions."""
    transitions: list[Transition]
    rollout_reward: float


LEFT_OUT_VALIDATION = "validation"
"""Why a rollout of a validation task is left out of its group."""


class GroupClosing(StrEnum):
    """Why a group was closed."""

    COMPLETE = "complete"
    """All its rollouts ended."""
    QUOTA = "quota"
    """The required number of rollouts ended; the group had more than that."""
    DEADLINE = "deadline"
    """Some rollouts did not end before the deadline."""


class GroupClosed(Event):
    """The final members of a group. Only the first such event of a group counts.

    It is recorded because whether a member was in time depends on the clock. A replay uses the recorded members.
    """

    type: Literal["group-closed"] = "group-closed"
    credit: str = ""
    group_id: str
    rollout_ids: list[str]
    """Sorted."""
    reason: GroupClosing = GroupClosing.COMPLETE


class GroupCredited(Event):
    """All members of a group were credited or left out. Comes after the group's sequences, in the same partition.

    `sequences` is 0 if no member can be trained; such a group still counts as a group.
    """

    type: Literal["group-credited"] = "group-credited"
    policy: str
    credit: str = ""
    """Name of the credit service that published it; empty for the unnamed one."""
    revision: int = Field(default=0, ge=0)
    """The same as that of its sequences."""
    group_id: str
    sequences: int = Field(ge=0)
    members: int = Field(ge=0)
    """Number of rollouts whose return is part of the baseline."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Rollout id → reason, for members that were left out."""
    reward_mean: float = 0.0
    reward_std: float = 0.0
    zero_variance: bool = False
    closed_by: GroupClosing = GroupClosing.COMPLETE
