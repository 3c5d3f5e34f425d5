"""What an RL engineer chooses about credit, as plain data, and the closed list of reasons to leave a rollout out."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from leyden.credit.core.agents import AgentRule
from leyden.credit.core.overlong import Overlong
from leyden.credit.core.strategies import Identical, Strategy

UNKNOWN_POLICY = "unknown"
"""Named by a group of which nothing says which policy it was for: every member failed, and none is configured."""


@dataclass(frozen=True)
class GroupRules:
    """Who is compared with whom, and how long a group waits: `group:` in the section `credit:`."""

    by: Literal["given", "task"] = "given"
    """`task`: rollouts that were started alone are compared with others of their task and policy-version window."""
    size: int | None = None
    """Members of a group by task; a given group has the size it was started with."""
    quota: int | None = None
    """Usable members with which an over-provisioned group is closed."""
    deadline_s: float | None = None
    """Seconds after the first member, when a group is closed with those that are here."""
    min_members: int = 2
    """Usable members that a group closed by its deadline needs to be trained."""
    version_window: int | None = None
    """By task: versions per window. Given groups: how far a member may be behind the newest."""
    decides: bool = True
    """Whether groups are closed here; False follows the recorded closings alone."""


@dataclass(frozen=True)
class Rules:
    """The section `credit:` of the run file."""

    strategy: Strategy = field(default_factory=Identical)
    advantage: str = "grpo"
    incomplete: Literal["drop", "train"] = "drop"
    policies: frozenset[str] | None = None
    """Policies whose calls are actions; None: every policy that the gateway names."""
    max_sequence_tokens: int = 32_768
    overlong: Overlong = "drop"
    """What becomes of longer sequences."""
    agents: tuple[AgentRule, ...] = ()
    """The first that matches a call's agent decides; none: every call is trained by `strategy`."""
    group: GroupRules = GroupRules()
    late_horizon_s: float = 0.0
    """Rewards that come so long after the rollout's end, by the two event times, still make a new revision."""
    credit: str = ""
    """Name of this credit service; empty for the only one."""

    @property
    def needs_spans(self) -> bool:
        """Whether a rollout's spans tell something that is asked for: which agent made a call."""
        return bool(self.agents)


class Reason(StrEnum):
    """Why a rollout gives nothing to train on. It is left out of its group, counted, and never a reward of 0."""

    FAILED = "failed"
    """The rollout failed; the class of the failure follows."""
    VALIDATION = "validation"
    """The task measures the policy; training on it would make the measure worthless."""
    INCOMPLETE = "incomplete"
    """Evidence is missing, and the setting is to drop such rollouts."""
    RULE_FAILED = "rule failed"
    """A reward rule raised, so the return is not known; the rules' names follow."""
    NO_REWARD = "no reward"
    """Nothing judged it."""
    NO_VALUE = "no value"
    """The credit strategy needs recorded values of all states, and some calls came without one; how many follows."""
    NO_POLICY_CALL = "no policy call"
    """It holds no call that can be trained."""
    TOO_LONG = "too long"
    """Nothing of its sequences fits in `max_sequence_tokens`. Its return still counts in the group's baseline."""
    STALE = "stale"
    """Its oldest action is too many versions behind the newest action of the group."""
    TOO_FEW = "too few members"
    """Its group was closed by the deadline with less than `min_members` to compare."""
    GROUP_CLOSED = "group closed"
    """It came after its group was closed; the group's events do not name it."""


def reason_text(reason: Reason, detail: str = "") -> str:
    """`reason` or `reason: detail`, as `GroupCredited.left_out` says it."""
    return f"{reason}: {detail}" if detail else str(reason)
