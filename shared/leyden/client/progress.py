"""A runner's progress: a bar on a terminal with rich installed, else a log line every few seconds."""

import logging
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from leyden.client.outcomes import Outcome

logger = logging.getLogger("leyden.client")

EVERY_S = 10.0


@dataclass
class Tally:
    """Counts of ended attempts."""

    counts: Counter[str] = field(default_factory=Counter)
    """`succeeded`, a failure class, or `lease_lost`."""
    rewards: int = 0
    reward_sum: float = 0.0
    running: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome | None) -> None:
        """Count one; None is a lost lease."""
        self.counts["lease_lost" if outcome is None else outcome.failure_class or outcome.status] += 1
        if outcome is not None and outcome.reward is not None:
            self.rewards += 1
            self.reward_sum += outcome.reward

    @property
    def done(self) -> int:
        """Ended attempts."""
        return self.counts.total()

    @property
    def failed(self) -> int:
        """Ended attempts that did not succeed."""
        return self.done - self.counts["succeeded"]

    def line(self) -> str:
        """One line for the log."""
        minutes = max(time.monotonic() - self.began, 1e-3) / 60
        mean = f", mean reward {self.reward_sum / self.rewards:.3f}" if self.rewards else ""
        return f"{self.done} done ({self.failed} failed), {self.running} running, {self.done / minutes:.1f}/min{mean}"


class ToldFailures:
    """The kinds of failures that were shown: failure class and type of the exception; and successes with a notice."""

    def __init__(self) -> None:
        self._kinds: set[tuple[str | None, str | None]] = set()

    def is_new(self, outcome: Outcome) -> bool:
        """Whether it is the first failure, or notice, of its kind; then it counts as shown."""
        kind = (outcome.failure_class, outcome.error_type)
        if (outcome.status != "failed" and not outcome.notice) or kind in self._kinds:
            return False
        self._kinds.add(kind)
        return True


def first_of_its_kind(outcome: Outcome, trace_id: str) -> str:
    """A failure with its traceback, if it has one; or the notice of a success."""
    if outcome.status == "succeeded":
        return f"rollout {trace_id}: {outcome.notice} (this is shown once)"
    traceback = str((outcome.evidence or {}).get("traceback") or "").rstrip()
    told = f"rollout {trace_id} failed, {outcome.failure_class}: {outcome.message}"
    return f"{told}\n{traceback}\n(more failures of this kind are only counted)" if traceback else told


class Progress(AbstractContextManager["Progress"], Protocol):
    """Shows the tally; called after every change."""

    def show(self, tally: Tally) -> None:
        """Show the tally."""


def progress_of(wanted: bool | None, total: int | None) -> Progress:
    """False: nothing. True or None: a bar on a terminal, log lines elsewhere."""
    if wanted is False:
        return Quiet()
    if sys.stderr.isatty():
        try:
            return Bar(total)
        except ModuleNotFoundError:
            logger.debug("rich is not installed: no progress bar")
    return Lines()


class Quiet(Progress):
    """Shows nothing."""

    def show(self, tally: Tally) -> None:
        """Nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to do."""


class Lines(Quiet):
    """A log line every `EVERY_S`, and one at the end."""

    def __init__(self) -> None:
        self._due = time.monotonic() + EVERY_S
        self._last: Tally | None = None

    def show(self, tally: Tally) -> None:
        """Log it every `EVERY_S`."""
        self._last = tally
        if time.monotonic() >= self._due:
            logger.info("%s", tally.line())
            self._due = time.monotonic() + EVERY_S

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Log the last state."""
        if self._last is not None:
            logger.info("%s", self._last.line())


class Bar(Quiet):
    """A bar drawn by rich. Raises ModuleNotFoundError when it is not installed."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        columns: list[Any] = [MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
        self._bar = RichProgress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("waiting for tasks", total=total)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bar.start()
        return self

    def show(self, tally: Tally) -> None:
        """Redraw."""
        self._bar.update(self._task, completed=tally.done, description=tally.line())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop drawing; the last state stays visible."""
        self._bar.stop()
