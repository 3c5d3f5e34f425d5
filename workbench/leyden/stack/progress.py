"""Progress lines: rewritten in place on a terminal, printed every few seconds elsewhere."""

import re
import time

from rich.console import Console

_SECONDS = re.compile(r" \((\d+) s\)$")
_QUIET_S = 10.0


class Progress:
    """Call it with a line. A line that differs from the last one only in its seconds replaces it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""
        self._told_at = 0.0
        self._open = False

    def __call__(self, line: str) -> None:
        subject = _SECONDS.sub("", line)
        again = subject == self._last
        if self._console.is_terminal:
            self._rewrite(line, again)
        elif not again or time.monotonic() - self._told_at > _QUIET_S:
            self._console.print(f"· {line}", highlight=False)
            self._told_at = time.monotonic()
        self._last = subject

    def _rewrite(self, line: str, again: bool) -> None:
        if self._open and not again:
            self._console.print()
        # Written directly: rich removes control codes.
        self._console.file.write(f"\r\x1b[2K· {line[: self._console.width - 3]}")
        self._console.file.flush()
        self._open = True

    def close(self) -> None:
        """End the line in progress."""
        if self._open:
            self._console.print()
            self._open = False
