"""Incremental detokenising: emits only text that later tokens cannot change."""

from collections.abc import Sequence
from typing import Any


class TextStream:
    """Incremental detokeniser with stop strings. `stopped` is True once one was found; it is not part of the text."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = (), special_tokens: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skips = not special_tokens
        self._stops = tuple(stops)
        self._ids: list[int] = []
        self._shown_from = 0
        self._shown_to = 0
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add one token. Returns the text that is now final."""
        self._ids.append(token)
        whole = self._decode(self._shown_from, len(self._ids))
        if whole.endswith("�"):
            return ""
        fresh = whole[len(self._decode(self._shown_from, self._shown_to)) :]
        self._shown_from, self._shown_to = self._shown_to, len(self._ids)
        return self._past_stops(fresh)

    def flush(self) -> str:
        """The remaining text; empty after a stop string."""
        if self.stopped:
            return ""
        rest = self._decode(self._shown_from, len(self._ids))[len(self._decode(self._shown_from, self._shown_to)) :]
        held, self._held = self._held + rest, ""
        self._shown_from = self._shown_to = len(self._ids)
        return held

    def _decode(self, start: int, end: int) -> str:
        return str(self._tokenizer.decode(self._ids[start:end], skip_special_tokens=self._skips))

    def _past_stops(self, fresh: str) -> str:
        text = self._held + fresh
        found = min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)
        if found >= 0:
            self.stopped, self._held = True, ""
            return text[:found]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
