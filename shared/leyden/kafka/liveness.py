"""Decides whether a consumer makes progress, from samples of its state. No IO: `leyden.kafka.lag` measures the lag.

Progress is a finished batch, or a heartbeat of the handler. A consumer is stalled if sample after sample shows no
progress although there were records to handle. See docs/adr/0001.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Heartbeat:
    """Signals progress of a handler that may take long. Thread-safe."""

    def __init__(self) -> None:
        self._beats = 0
        self._waiting_for = ""

    def beat(self, waiting_for: str = "") -> None:
        """Report progress. `waiting_for`: one sentence if the handler waits for something; readiness shows it."""
        self._waiting_for = waiting_for
        self._beats += 1

    @property
    def beats(self) -> int:
        """Number of calls of `beat`."""
        return self._beats

    @property
    def waiting_for(self) -> str:
        """`waiting_for` of the last beat; "" if the handler is not waiting."""
        return self._waiting_for


class Phase(StrEnum):
    """What a consumer is doing."""

    IDLE = "idle"
    """Waiting for records."""
    HANDLING = "handling"
    """The handler is processing a batch."""
    COMMITTING = "committing"
    """The batch is finished and its offsets are being committed."""


@dataclass(frozen=True)
class Sample:
    """The state of a consumer at one moment. `lag` None: it could not be measured."""

    lag: int | None
    phase: Phase
    progress: int
    """A number that increases with every finished batch and every beat."""


class Liveness:
    """Accumulates samples of one consumer. `monotonic` returns seconds; a sample is expected every `every_s`."""

    def __init__(self, name: str, monotonic: Callable[[], float], every_s: float) -> None:
        self._name = name
        self._monotonic = monotonic
        self._every_s = every_s
        self._sampled_at = monotonic()
        self._progress = 0
        self._stalled_s = 0.0
        self._last: Sample | None = None

    def add(self, sample: Sample) -> None:
        """Count the time since the last sample as stalled if there was work and no progress.

        A failed measurement of the lag neither adds stalled time nor resets it. One sample adds at most two intervals,
        so a machine that was suspended does not report its consumers as stalled.
        """
        now = self._monotonic()
        passed = min(now - self._sampled_at, 2 * self._every_s)
        self._sampled_at = now
        known = sample.lag is not None
        if sample.progress != self._progress:
            self._progress, self._stalled_s = sample.progress, 0.0
        elif sample.phase is Phase.HANDLING or (known and (sample.lag or sample.phase is Phase.COMMITTING)):
            self._stalled_s += passed
        elif known:
            self._stalled_s = 0.0
        self._last = sample

    def stalled(self, after_s: float) -> str | None:
        """One sentence if nothing was finished for `after_s` seconds despite work, or if samples stopped coming."""
        if (unseen := self._monotonic() - self._sampled_at) >= max(after_s, 3 * self._every_s):
            return f"the lag of {self._name} has not been measured for {unseen:.0f} s"
        if self._stalled_s < after_s or self._last is None:
            return None
        did = f"no record of {self._name} was finished for {self._stalled_s:.0f} s"
        if self._last.phase is Phase.IDLE:
            return f"{did}, {self._last.lag or 0} are waiting, and none is being handled: the consumer has stopped"
        return f"{did}: the consumer is {self._last.phase} a batch and makes no progress"
