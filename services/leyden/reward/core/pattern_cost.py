"""An upper bound on the work of a backtracking match, from the pattern alone: `^(a+)+$` on 40 characters never ends.

Python's `re` tries one way after the other in which the pattern could match. Their number is bounded here by counting
them as if every element matched everywhere. Harmless patterns may be counted as costly; never the other way round.
ADR 29 says why it is not a linear engine.
"""

import re
import re._constants as sre  # type: ignore[import-not-found]  # typeshed has no stub
import re._parser as sre_parser  # type: ignore[import-not-found]
from functools import lru_cache
from typing import Any

COSTLY = 10**18
"""Where counting stops."""
_ZERO_WIDTH = frozenset({sre.AT})
_ONE = frozenset({sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN, sre.RANGE, sre.CATEGORY})
_REPEATS = frozenset({sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT})


@lru_cache(maxsize=4096)
def matching_ways(pattern: str, length: int) -> int:
    """In how many ways a search for `pattern` may match a text of `length` characters, at most; `COSTLY` for more.

    0 for a pattern that is no regular expression: it matches in no way.
    """
    try:
        parsed = sre_parser.parse(pattern)
    except (re.error, RecursionError, OverflowError):
        return 0
    return min((length + 1) * _sequence(parsed, length), COSTLY)


def _sequence(items: Any, length: int) -> int:
    ways = 1
    for item in items:
        ways = min(ways * _item(item, length), COSTLY)
    return ways


def _item(item: Any, length: int) -> int:
    kind, value = item
    if kind in _ZERO_WIDTH or kind in _ONE:
        return 1
    if kind in _REPEATS:
        least, most, inner = value
        return _repeat(least, most, _sequence(inner, length), length)
    if kind is sre.BRANCH:
        return min(sum(_sequence(branch, length) for branch in value[1]), COSTLY)
    if kind is sre.SUBPATTERN:
        return _sequence(value[-1], length)
    if kind is sre.ATOMIC_GROUP:
        return _sequence(value, length)
    if kind in (sre.ASSERT, sre.ASSERT_NOT):
        return _sequence(value[1], length)
    return COSTLY  # back-references, conditions


def _repeat(least: int, most: int, once: int, length: int) -> int:
    """Ways of repeating something that matches in `once` ways."""
    most = min(int(most), max(length, int(least)))
    if once == 1:
        return most - least + 1
    ways, power = 0, 1
    for count in range(most + 1):
        ways += power if count >= least else 0
        if ways > COSTLY or power > COSTLY:
            return COSTLY
        power *= once
    return ways
