"""What one rollout brings to its group: sequences and rewards, or why it is left out. Kept as JSON."""

from pydantic import AwareDatetime, Field

from leyden.credit.core.strategies import Episode, StrategySetting
from leyden.events import PackedFloats, PackedInts, Record


class Span(Record):
    """A transition whose return and advantage are not known yet; tokens [start, end) are its action."""

    call_id: str
    choice: int
    start: int
    end: int
    policy_version: int
    temperature: float
    reward: float
    part: int
    """Which of the trajectory's parts it is in."""
    step: int
    """Its number in that part's episode."""
    agent_name: str | None = None
    origin: str


class TokenSequence(Record):
    """One lineage as it will be published."""

    token_ids: PackedInts
    behaviour_logprobs: PackedFloats
    spans: list[Span]


class Part(Record):
    """The actions of a trajectory that one strategy credits."""

    strategy: StrategySetting
    episode: Episode


class Trajectory(Record):
    """What one policy did in the rollout, and the rollout's rewards."""

    policy: str
    total: float
    parts: list[Part]
    """By strategy, in the order of their first actions; actions of sequences that are too long are here too."""
    sequences: list[TokenSequence]
    """Empty when none was short enough; the return still counts in the baseline."""
    too_long: int = 0
    """Sequences that were longer than allowed."""


class Member(Record):
    """One rollout of a group."""

    rollout_id: str
    attempt: int
    group_id: str
    group_size: int
    revision: int = 0
    """Of its rewards: counts up when one came late."""
    ended_at: AwareDatetime
    traceparent: str = ""
    left_out: str | None = None
    """The reason, when the rollout is left out of the group and of its baseline."""
    policies: list[str] = Field(default_factory=list)
    """Policies that acted in it, whether or not it was left out."""
    trajectories: list[Trajectory] = Field(default_factory=list)
    """By policy; empty when left out."""
    calls: dict[str, int] = Field(default_factory=dict)
    """How many calls came in which way: counts for the metrics."""
