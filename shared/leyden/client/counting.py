"""How many spans the processes of one rollout have sent: a file that each adds a line to when it ends."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SpanCounts:
    """Where they write, and what they wrote."""

    path: str

    def total(self) -> int | None:
        """The sum; None when a process could not tell."""
        lines = Path(self.path).read_text().split()
        return sum(map(int, lines)) if all(line.isdecimal() for line in lines) else None


@contextmanager
def span_counts() -> Iterator[SpanCounts]:
    """A new file, gone at the end of the block."""
    with tempfile.NamedTemporaryFile(prefix="leyden-spans-") as file:
        yield SpanCounts(file.name)
