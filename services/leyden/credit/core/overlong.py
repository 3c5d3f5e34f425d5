"""Cuts lineages that are longer than a training sequence may be. Every action stays whole or is dropped.

A piece is a window over the lineage's tokens. It ends with an action and trains whole actions; all tokens before them
are context, also those of the policy. No action is in two pieces.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Literal

from leyden.credit.core.actions import TOKEN_BYTES
from leyden.credit.core.merge import Lineage, LineageAction

Overlong = Literal["drop", "truncate", "split"]
ActionSlice = tuple[int, int]
"""Indices of the first and last action of a piece in the lineage."""


class Fitted(StrEnum):
    """Effect of the limit on an action."""

    TOO_LONG = "too_long"
    """It is not trained."""
    TRUNCATED = "truncated"
    """It is trained, but its state lost its oldest tokens."""


def fit(lineages: Sequence[Lineage], limit: int, overlong: Overlong) -> tuple[list[Lineage], Counter[Fitted]]:
    """`lineages` as sequences of at most `limit` tokens, in order, and how many actions were affected how."""
    pieces: list[Lineage] = []
    fitted: Counter[Fitted] = Counter()
    for lineage in lineages:
        if lineage.length <= limit:
            pieces.append(lineage)
            continue
        slices = _slices(lineage.actions, limit, overlong)
        mine = [_piece(lineage, slice_, limit) for slice_ in slices]
        kept = [(trained.start, whole.start) for trained, whole in _pairs(mine, slices, lineage)]
        fitted[Fitted.TOO_LONG] += len(lineage.actions) - len(kept)
        fitted[Fitted.TRUNCATED] += sum(start < whole for start, whole in kept)
        pieces += mine
    return pieces, +fitted


def _slices(actions: Sequence[LineageAction], limit: int, overlong: Overlong) -> list[ActionSlice]:
    match overlong:
        case "truncate":
            return list(_fewest(actions, limit))[::-1]
        case "split":
            return list(_with_context(actions, limit))
        case "drop":
            return []


def _fewest(actions: Sequence[LineageAction], limit: int) -> Iterator[ActionSlice]:
    """From the last action back: a piece holds every action that leaves a token of state before its first one."""
    last = len(actions) - 1
    while last >= 0:
        if _fits(actions[last], limit):
            window = max(0, actions[last].end - limit)
            first = last
            while first > 0 and actions[first - 1].start > window:
                first -= 1
            yield first, last
            last = first
        last -= 1


def _with_context(actions: Sequence[LineageAction], limit: int) -> Iterator[ActionSlice]:
    """From the first action on: a piece takes the next action in while its first one keeps enough of its state.

    Enough is the whole state, or half of the limit where the state is longer than that.
    """
    first = 0
    while first < len(actions):
        last = first
        if _fits(actions[first], limit):
            least = min(actions[first].start, limit // 2)
            while last + 1 < len(actions) and actions[first].start - max(0, actions[last + 1].end - limit) >= least:
                last += 1
            yield first, last
        first = last + 1


def _fits(one: LineageAction, limit: int) -> bool:
    """Whether the action and one token of state are within the limit."""
    return one.end - one.start < limit


def _piece(lineage: Lineage, slice_: ActionSlice, limit: int) -> Lineage:
    first, last = slice_
    end = lineage.actions[last].end
    window = max(0, end - limit)
    actions = [
        LineageAction(one.action, one.start - window, one.end - window) for one in lineage.actions[first : last + 1]
    ]
    tokens = lineage.tokens[window * TOKEN_BYTES : end * TOKEN_BYTES]
    return Lineage(lineage.policy, tokens[: actions[0].start * TOKEN_BYTES], tokens, actions)


def _pairs(
    pieces: Sequence[Lineage], slices: Sequence[ActionSlice], lineage: Lineage
) -> Iterator[tuple[LineageAction, LineageAction]]:
    """Each trained action, as in its piece and as in the lineage."""
    for piece, (first, last) in zip(pieces, slices, strict=True):
        yield from zip(piece.actions, lineage.actions[first : last + 1], strict=True)
