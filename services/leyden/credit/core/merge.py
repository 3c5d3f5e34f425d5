"""Actions merged into lineages: one exact token sequence per conversation, however many of them interleave.

An action whose prompt begins with all tokens of a lineage (its prompts and responses so far) extends it. Any other one
begins a lineage of its own, with its whole prompt as context: an edited history forks, parallel samples stay apart. So
every response is trained exactly once, and a token that the policy did not write is never trained.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from leyden.credit.core.actions import TOKEN_BYTES, Action


class Joined(StrEnum):
    """How an action came into its lineage."""

    STARTED = "started"
    """Nothing before it had its beginning: the first call of an agent."""
    EXTENDED = "extended"
    """Its prompt holds an earlier prompt and response exactly."""
    PARALLEL = "parallel"
    """Another sample of a prompt that was sampled before."""
    FORKED = "forked"
    """It begins like an earlier conversation and differs later: the history was edited, or text drifted."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An action's place in its lineage: tokens [start, end) are its response."""

    action: Action
    start: int
    end: int


@dataclass(slots=True)
class Lineage:
    """One conversation: all its tokens, packed, and where the policy's own are among them."""

    policy: str
    root: bytes
    """Prompt of its first action."""
    tokens: bytes
    placed: list[Placed] = field(default_factory=list)

    def append(self, action: Action) -> None:
        """Make the action's prompt and response the lineage's tokens; the prompt must begin with what they are now."""
        start = len(action.prompt) // TOKEN_BYTES
        self.tokens = action.prompt + action.response
        self.placed.append(Placed(action, start, len(self.tokens) // TOKEN_BYTES))

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens) // TOKEN_BYTES


def merge(actions: Iterable[Action]) -> tuple[list[Lineage], Counter[Joined]]:
    """The lineages of `actions` (given in their order), by first action, and how many actions came in which way.

    Of several lineages that an action could extend the longest is taken, of equally long ones the earliest.
    """
    lineages: list[Lineage] = []
    joined: Counter[Joined] = Counter()
    for action in actions:
        mine = [lineage for lineage in lineages if lineage.policy == action.policy]
        fitting = [lineage for lineage in mine if action.prompt.startswith(lineage.tokens)]
        if fitting:
            joined[Joined.EXTENDED] += 1
            max(fitting, key=lambda lineage: len(lineage.tokens)).append(action)
            continue
        joined[_how(action, mine)] += 1
        lineage = Lineage(action.policy, action.prompt, b"")
        lineage.append(action)
        lineages.append(lineage)
    return lineages, joined


def _how(action: Action, lineages: list[Lineage]) -> Joined:
    """What it means that `action` begins a lineage beside `lineages`."""
    if any(placed.action.prompt == action.prompt for lineage in lineages for placed in lineage.placed):
        return Joined.PARALLEL
    if any(action.prompt.startswith(lineage.root) for lineage in lineages):
        return Joined.FORKED
    return Joined.STARTED
