"""Actions merged into lineages: one exact token sequence per conversation, however many of them interleave.

An action whose prompt starts with all tokens of a lineage (its prompts and responses so far) extends it. Any other
action starts a new lineage, with its whole prompt as context: an edited history forks, parallel samples stay separate.
So every response is trained exactly once, and a token that the policy did not generate is never trained.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from leyden.credit.core.actions import TOKEN_BYTES, Action
from leyden.credit.core.prefixes import PrefixIndex


class Joined(StrEnum):
    """How an action joined its lineage."""

    STARTED = "started"
    """No earlier call shares its start: the first call of an agent."""
    EXTENDED = "extended"
    """Its prompt starts with exactly an earlier prompt and response."""
    PARALLEL = "parallel"
    """Another sample of a prompt that was sampled before."""
    FORKED = "forked"
    """It starts like an earlier conversation and differs later: the history was edited, or its text drifted."""


@dataclass(frozen=True, slots=True)
class LineageAction:
    """An action in its lineage: tokens [start, end) are its response."""

    action: Action
    start: int
    end: int


@dataclass(slots=True)
class Lineage:
    """One conversation: all its tokens, packed, and its actions."""

    policy: str
    root: bytes
    """Prompt of its first action."""
    tokens: bytes
    actions: list[LineageAction] = field(default_factory=list)

    def append(self, action: Action) -> None:
        """Extend the lineage by `action`, whose prompt must start with the lineage's tokens."""
        start = len(action.prompt) // TOKEN_BYTES
        self.tokens = action.prompt + action.response
        self.actions.append(LineageAction(action, start, len(self.tokens) // TOKEN_BYTES))

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens) // TOKEN_BYTES


def merge(actions: Iterable[Action]) -> tuple[list[Lineage], Counter[Joined]]:
    """The lineages of `actions`, in order of their first action, and how many actions joined in which way.

    If an action could extend several lineages, the longest is taken; of equally long ones, the earliest.
    """
    lineages: list[Lineage] = []
    joined: Counter[Joined] = Counter()
    known: dict[str, _Known] = {}
    for action in actions:
        mine = known.setdefault(action.policy, _Known())
        number = mine.extended_by(action)
        if number is not None:
            joined[Joined.EXTENDED] += 1
            mine.ends.remove(lineages[number].tokens, number)
        else:
            joined[mine.how(action)] += 1
            number = len(lineages)
            lineages.append(Lineage(action.policy, action.prompt, b""))
        lineages[number].append(action)
        mine.note(action, lineages[number], number)
    return lineages, joined


class _Known:
    """Index of one policy's earlier calls, so that an action finds its lineage without comparing with each."""

    def __init__(self) -> None:
        self.ends = PrefixIndex[int]()
        """All tokens of a lineage → its number."""
        self._roots = PrefixIndex[None]()
        self._prompts: set[bytes] = set()
        self._unread: list[bytes] = []
        """Prompts not yet added to `_prompts`; most rollouts never need them."""

    def extended_by(self, action: Action) -> int | None:
        """Index of the lineage that `action` extends; None if it extends none."""
        longest = next(self.ends.beginnings_of(action.prompt), None)
        return min(longest) if longest else None

    def how(self, action: Action) -> Joined:
        """How `action`, which starts a new lineage, relates to earlier calls."""
        self._prompts.update(self._unread)
        self._unread.clear()
        if action.prompt in self._prompts:
            return Joined.PARALLEL
        forked = next(self._roots.beginnings_of(action.prompt), None) is not None
        self._roots.add(action.prompt, None)
        return Joined.FORKED if forked else Joined.STARTED

    def note(self, action: Action, lineage: Lineage, number: int) -> None:
        """Remember `action`, which is now the last one of `lineage`."""
        self.ends.add(lineage.tokens, number)
        self._unread.append(action.prompt)
