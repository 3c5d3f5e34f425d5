"""What can be recorded as token ids and logprobs, of the numbers that engines send."""

from collections.abc import Sequence
from typing import Any

from leyden.events.base import pack_ints

TOKEN_LIMIT = 2**31
"""Token ids are recorded as int32."""
NO_LOGPROB = -9999.0
"""What vLLM writes for a logprob that is minus infinity or missing."""
ROUNDING = 1e-3
"""How far above 0 rounding can lift the logprob of a certain token."""


def packed_ids(values: list[Any]) -> bytes:
    """`values` packed; empty if they are not token ids."""
    return pack_ints(values) if are_token_ids(values) else b""


def are_token_ids(values: object) -> bool:
    """Whether `values` is a list of token ids; true for an empty one."""
    if not isinstance(values, list) or not set(map(type, values)) <= {int}:
        return False
    return not values or (min(values) >= 0 and max(values) < TOKEN_LIMIT)


def are_logprobs(values: Sequence[Any]) -> bool:
    """Whether `values` are logprobs of tokens that can be sampled: numbers, finite, and not above 0."""
    return all(type(value) in (float, int) and NO_LOGPROB < value <= ROUNDING for value in values)
