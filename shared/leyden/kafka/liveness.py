"""Whether a consumer makes progress: pure bookkeeping over looks at its lag, which `leyden.kafka.lag` takes.

Progress is a finished batch, or a beat of the handler that has one in hand. A consumer is stalled when it was seen
without progress, look after look, while it had records to handle. See docs/adr/0001.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Heartbeat:
    """A handler's sign of life, for one that may rightly take long. Safe to call from any thread."""

    def __init__(self) -> None:
        self._beats = 0
        self._waiting_for = ""

    def beat(self, waiting_for: str = "") -> None:
        """Say that work goes on; `waiting_for` is one sentence while it cannot, which readiness shows."""
        self._waiting_for = waiting_for
        self._beats += 1

    @property
    def beats(self) -> int:
        """How often `beat` was called."""
        return self._beats

    @property
    def waiting_for(self) -> str:
        """What the last beat said; "" while work goes on."""
        return self._waiting_for


class Phase(StrEnum):
    """What a consumer is doing."""

    IDLE = "idle"
    """No batch is in hand: it waits for records."""
    HANDLING = "handling"
    """A batch is with the handler."""
    COMMITTING = "committing"
    """A batch is finished, and Kafka is asked to keep its offsets."""


@dataclass(frozen=True)
class Look:
    """What was seen at one moment. `lag` None: Kafka did not answer, or the measurement failed."""

    lag: int | None
    phase: Phase
    progress: int
    """A number that grows with every finished batch and every beat."""


class Liveness:
    """The looks at one consumer added up. `monotonic` gives seconds; a look is due every `every_s`."""

    def __init__(self, name: str, monotonic: Callable[[], float], every_s: float) -> None:
        self._name = name
        self._monotonic = monotonic
        self._every_s = every_s
        self._looked_at = monotonic()
        self._progress = 0
        self._stalled_s = 0.0
        self._last: Look | None = None

    def note(self, look: Look) -> None:
        """Count the time since the last look as stalled when there was work to do and no progress.

        A failed measurement counts nothing, and forgets nothing. No look counts for more than two intervals: a machine
        that slept has not seen a consumer stall.
        """
        now = self._monotonic()
        passed = min(now - self._looked_at, 2 * self._every_s)
        self._looked_at = now
        if look.progress != self._progress:
            self._progress, self._stalled_s = look.progress, 0.0
        elif look.phase is Phase.HANDLING or (look.lag is not None and (look.lag or look.phase is Phase.COMMITTING)):
            self._stalled_s += passed
        elif look.lag is not None:
            self._stalled_s = 0.0
        self._last = look

    def stalled(self, after_s: float) -> str | None:
        """One sentence when nothing was finished for `after_s` seconds though there was work, or nobody looks."""
        if (unseen := self._monotonic() - self._looked_at) >= max(after_s, 3 * self._every_s):
            return f"the lag of {self._name} has not been measured for {unseen:.0f} s"
        if self._stalled_s < after_s or self._last is None:
            return None
        did = f"no record of {self._name} was finished for {self._stalled_s:.0f} s"
        if self._last.phase is Phase.IDLE:
            return f"{did}, {self._last.lag or 0} are waiting, and none is being handled: the consumer has stopped"
        return f"{did}: a batch is {self._last.phase} and its handler shows no progress"
