"""Byte strings found again as beginnings of longer ones, without comparing with each. No tokens, no policies."""

from collections.abc import Iterator
from typing import Generic, TypeVar

TAIL_BYTES = 64
"""What a string is looked up by is its length and its last bytes; only strings that agree there are compared whole."""

V = TypeVar("V")


class PrefixIndex(Generic[V]):
    """Values under byte strings; several may share one string.

    A look-up costs one small dictionary access per distinct length, and a comparison per string that looks right.
    """

    def __init__(self) -> None:
        self._by_length: dict[int, dict[bytes, list[tuple[bytes, V]]]] = {}

    def add(self, string: bytes, value: V) -> None:
        """Keep `value` under `string`."""
        self._by_length.setdefault(len(string), {}).setdefault(_tail(string, len(string)), []).append((string, value))

    def remove(self, string: bytes, value: V) -> None:
        """Forget one `value` under `string`; raises when there is none."""
        tails = self._by_length[len(string)]
        entries = tails[_tail(string, len(string))]
        entries.remove((string, value))
        if not entries:
            del tails[_tail(string, len(string))]
        if not tails:
            del self._by_length[len(string)]

    def beginnings_of(self, string: bytes) -> Iterator[list[V]]:
        """The values under each string that `string` begins with, the longest string first."""
        for length in sorted((length for length in self._by_length if length <= len(string)), reverse=True):
            likely = self._by_length[length].get(_tail(string, length), ())
            if values := [value for kept, value in likely if string.startswith(kept)]:
                yield values


def _tail(string: bytes, end: int) -> bytes:
    return string[max(0, end - TAIL_BYTES) : end]
