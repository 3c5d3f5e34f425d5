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
from leyden.credit.core.prefixes import PrefixIndex


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
class LineageAction:
    """An action in its lineage: tokens [start, end) are its response."""

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
    actions: list[LineageAction] = field(default_factory=list)

    def append(self, action: Action) -> None:
        """Make the action's prompt and response the lineage's tokens; the prompt must begin with what they are now."""
        start = len(action.prompt) // TOKEN_BYTES
        self.tokens = action.prompt + action.response
        self.actions.append(LineageAction(action, start, len(self.tokens) // TOKEN_BYTES))

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
    """What came before of one policy, so that an action finds its lineage without a look at every other."""

    def __init__(self) -> None:
        self.ends = PrefixIndex[int]()
        """All tokens of a lineage → its number."""
        self._roots = PrefixIndex[None]()
        self._prompts: set[bytes] = set()
        self._unread: list[bytes] = []
        """Prompts that are not among `_prompts` yet: most rollouts never ask for them."""

    def extended_by(self, action: Action) -> int | None:
        """The number of the lineage that `action` goes on from."""
        longest = next(self.ends.beginnings_of(action.prompt), None)
        return min(longest) if longest else None

    def how(self, action: Action) -> Joined:
        """What it means that `action` begins a lineage beside the others."""
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
