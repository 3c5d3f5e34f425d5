"""One rollout of a group: its sequences and rewards, or why it is left out. Stored as JSON."""

from pydantic import AwareDatetime, Field

from leyden.credit.core.strategies import Episode, StrategySetting
from leyden.events import PackedFloats, PackedInts, Record


class PendingTransition(Record):
    """A transition before its group is closed: no return and no advantage yet. Tokens [start, end) are its action."""

    call_id: str
    choice: int
    start: int
    end: int
    policy_version: int
    temperature: float
    reward: float
    part: int
    """Index of its part in the trajectory."""
    step: int
    """Index of its step in that part's episode."""
    agent_name: str | None = None
    origin: str


class TokenSequence(Record):
    """One training sequence."""

    token_ids: PackedInts
    behaviour_logprobs: PackedFloats
    transitions: list[PendingTransition]


class Part(Record):
    """The actions of a trajectory that one strategy credits."""

    strategy: StrategySetting
    episode: Episode


class Trajectory(Record):
    """One policy's actions in the rollout, and the rollout's rewards."""

    policy: str
    total: float
    parts: list[Part]
    """By strategy, in the order of their first actions; actions of sequences that are too long are here too."""
    sequences: list[TokenSequence]
    """Empty if all were too long; the return still counts in the baseline."""
    too_long: int = 0
    """Sequences that were longer than allowed."""


class Member(Record):
    """One rollout of a group."""

    rollout_id: str
    attempt: int
    group_id: str
    group_size: int
    revision: int = 0
    """Revision of its rewards; each late reward adds one."""
    late_horizon_s: float = 0.0
    """How long after its end late rewards may come; its group is kept as long."""
    ended_at: AwareDatetime
    traceparent: str = ""
    left_out: str | None = None
    """Why it is left out of the group and of the baseline; None if it is not."""
    policies: list[str] = Field(default_factory=list)
    """Policies that acted in it, whether or not it was left out."""
    trajectories: list[Trajectory] = Field(default_factory=list)
    """By policy; empty when left out."""
    calls: dict[str, int] = Field(default_factory=dict)
    """How calls were used → how many; for the metrics."""

    def without_training(self, reason: str) -> "Member":
        """The member left out for `reason`."""
        return self.model_copy(update={"left_out": reason, "trajectories": []})
