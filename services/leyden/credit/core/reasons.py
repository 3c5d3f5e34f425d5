"""The closed list of reasons for leaving a rollout out of its group."""

from enum import StrEnum

from leyden.events.transitions import LEFT_OUT_VALIDATION


class Reason(StrEnum):
    """Why nothing of a rollout is trained. It is left out of its group and counted; it never gets a reward of 0."""

    FAILED = "failed"
    """The rollout failed; the failure class follows."""
    VALIDATION = LEFT_OUT_VALIDATION
    """A validation task measures the policy; training on it would spoil the measurement."""
    INCOMPLETE = "incomplete"
    """Evidence is missing, and `incomplete: drop` is set."""
    RULE_FAILED = "rule failed"
    """A reward rule raised, so the return is unknown; the names of the rules follow."""
    NO_REWARD = "no reward"
    """No rule or judge gave it a reward."""
    NO_OUTCOME = "no outcome"
    """It has intermediate rewards only, and rules for its outcome are configured. A missing outcome is not 0."""
    REWARD_OUT_OF_RANGE = "reward out of range"
    """A reward, its value times its weight, or the sum of these is beyond ±1e9; the names of the rules, or the sum,
    follow."""
    NOT_FINITE = "not finite"
    """Credit's arithmetic on its group overflowed, so all the group's members are left out; the strategy follows."""
    NO_VALUE = "no value"
    """The credit strategy needs a recorded value for every call, and some calls have none; how many follows."""
    NO_POLICY_CALL = "no policy call"
    """It has no call that can be trained."""
    TOO_LONG = "too long"
    """All its sequences exceed `max_sequence_tokens`. Its return still counts in the group's baseline."""
    STALE = "stale"
    """Its oldest action is too many versions behind the newest action of the group."""
    TOO_FEW = "too few members"
    """Its group was closed by the deadline with fewer than `min_members` usable members."""
    GROUP_CLOSED = "group closed"
    """It ended after its group was closed; the group's events do not name it."""


def reason_text(reason: Reason, detail: str = "") -> str:
    """`reason` or `reason: detail`, as in `GroupCredited.left_out`."""
    return f"{reason}: {detail}" if detail else str(reason)
