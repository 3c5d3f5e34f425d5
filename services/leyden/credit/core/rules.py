"""What an RL engineer chooses about credit, as plain data, and the closed list of reasons to leave a rollout out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

UNKNOWN_POLICY = "unknown"
"""Named by a group of which nothing says which policy it was for: every member failed, and none is configured."""


@dataclass(frozen=True)
class Rules:
    """The section `credit:` of the run file."""

    strategy: str = "identical"
    advantage: str = "grpo"
    incomplete: Literal["drop", "train"] = "drop"
    policies: frozenset[str] | None = None
    """Policies whose calls are actions; None: every policy that the gateway names."""
    max_sequence_tokens: int = 32_768


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
    NO_POLICY_CALL = "no policy call"
    """It holds no call that can be trained."""
    TOO_LONG = "too long"
    """Every sequence exceeds `max_sequence_tokens`. Its return still counts in the group's baseline."""


def reason_text(reason: Reason, detail: str = "") -> str:
    """`reason` or `reason: detail`, as `GroupCredited.left_out` says it."""
    return f"{reason}: {detail}" if detail else str(reason)
