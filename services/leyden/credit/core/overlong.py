"""What becomes of a lineage that is longer than a training sequence may be. Every action stays whole, or is dropped.

A piece is a window over the lineage's tokens: it ends with an action, what it trains are whole actions in it, and all
that stands before them is context, whoever wrote it. No action is in two pieces.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Literal

from leyden.credit.core.actions import TOKEN_BYTES
from leyden.credit.core.merge import Lineage, Placed

Overlong = Literal["drop", "truncate", "split"]
Actions = tuple[int, int]
"""The first and the last action of a piece, by their number in the lineage."""


class Fitted(StrEnum):
    """What the limit did to an action."""

    TOO_LONG = "too_long"
    """It is not trained."""
    TRUNCATED = "truncated"
    """It is trained, and its state lost its oldest tokens."""


def fit(lineages: Sequence[Lineage], limit: int, overlong: Overlong) -> tuple[list[Lineage], Counter[Fitted]]:
    """`lineages` as sequences of at most `limit` tokens, in their order, and what became of how many actions."""
    pieces: list[Lineage] = []
    fitted: Counter[Fitted] = Counter()
    for lineage in lineages:
        if lineage.length <= limit:
            pieces.append(lineage)
            continue
        ranges = _ranges(lineage.placed, limit, overlong)
        mine = [_piece(lineage, actions, limit) for actions in ranges]
        kept = [(placed.start, whole.start) for placed, whole in _pairs(mine, ranges, lineage)]
        fitted[Fitted.TOO_LONG] += len(lineage.placed) - len(kept)
        fitted[Fitted.TRUNCATED] += sum(start < whole for start, whole in kept)
        pieces += mine
    return pieces, +fitted


def _ranges(placed: Sequence[Placed], limit: int, overlong: Overlong) -> list[Actions]:
    match overlong:
        case "truncate":
            return list(_fewest(placed, limit))[::-1]
        case "split":
            return list(_with_context(placed, limit))
        case "drop":
            return []


def _fewest(placed: Sequence[Placed], limit: int) -> Iterator[Actions]:
    """From the last action back: a piece holds every action that leaves a token of state before its first one."""
    last = len(placed) - 1
    while last >= 0:
        if _fits(placed[last], limit):
            window = max(0, placed[last].end - limit)
            first = last
            while first > 0 and placed[first - 1].start > window:
                first -= 1
            yield first, last
            last = first
        last -= 1


def _with_context(placed: Sequence[Placed], limit: int) -> Iterator[Actions]:
    """From the first action on: a piece takes the next action in while its first one keeps enough of its state.

    Enough is the whole state, or half of the limit where the state is longer than that.
    """
    first = 0
    while first < len(placed):
        last = first
        if _fits(placed[first], limit):
            least = min(placed[first].start, limit // 2)
            while last + 1 < len(placed) and placed[first].start - max(0, placed[last + 1].end - limit) >= least:
                last += 1
            yield first, last
        first = last + 1


def _fits(one: Placed, limit: int) -> bool:
    """Whether the action and one token of state are within the limit."""
    return one.end - one.start < limit


def _piece(lineage: Lineage, actions: Actions, limit: int) -> Lineage:
    first, last = actions
    end = lineage.placed[last].end
    window = max(0, end - limit)
    placed = [Placed(one.action, one.start - window, one.end - window) for one in lineage.placed[first : last + 1]]
    tokens = lineage.tokens[window * TOKEN_BYTES : end * TOKEN_BYTES]
    return Lineage(lineage.policy, tokens[: placed[0].start * TOKEN_BYTES], tokens, placed)


def _pairs(pieces: Sequence[Lineage], ranges: Sequence[Actions], lineage: Lineage) -> Iterator[tuple[Placed, Placed]]:
    """Each action that is trained: as its piece has it, and as the lineage has it."""
    for piece, (first, last) in zip(pieces, ranges, strict=True):
        yield from zip(piece.placed, lineage.placed[first : last + 1], strict=True)
