"""Index of byte strings that finds those which a longer string starts with."""

from collections.abc import Iterator
from typing import Generic, TypeVar

TAIL_BYTES = 64
"""Strings are indexed by length and last bytes; only strings that agree in these are compared."""

V = TypeVar("V")


class PrefixIndex(Generic[V]):
    """Values by byte string; several values may share one string.

    A lookup costs one dictionary access per distinct length, and one comparison per candidate.
    """

    def __init__(self) -> None:
        self._by_length: dict[int, dict[bytes, list[tuple[bytes, V]]]] = {}

    def add(self, string: bytes, value: V) -> None:
        """Keep `value` under `string`."""
        self._by_length.setdefault(len(string), {}).setdefault(_tail(string, len(string)), []).append((string, value))

    def remove(self, string: bytes, value: V) -> None:
        """Remove one `value` under `string`; raises KeyError or ValueError if it is not there."""
        tails = self._by_length[len(string)]
        entries = tails[_tail(string, len(string))]
        entries.remove((string, value))
        if not entries:
            del tails[_tail(string, len(string))]
        if not tails:
            del self._by_length[len(string)]

    def beginnings_of(self, string: bytes) -> Iterator[list[V]]:
        """The values under each string that `string` starts with, longest first."""
        for length in sorted((length for length in self._by_length if length <= len(string)), reverse=True):
            likely = self._by_length[length].get(_tail(string, length), ())
            if values := [value for kept, value in likely if string.startswith(kept)]:
                yield values


def _tail(string: bytes, end: int) -> bytes:
    return string[max(0, end - TAIL_BYTES) : end]
