"""How many spans of a process went where: what `leyden.stats()` tells."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SpanStats:
    """What became of all spans of this process's rollouts so far."""

    queued: int
    """Waiting to be sent."""
    sent: int
    """Acknowledged by the gateway."""
    dropped: int
    """Not taken: the queue was full, or closed."""
    failed: int
    """Not delivered in time, or rejected by the gateway."""
