"""Keeps the leases of running attempts: one daemon thread, however many attempts."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from leyden.client.claims import Claim
from leyden.client.errors import AttemptOverError, GatewayError, GatewayUnavailableError

if TYPE_CHECKING:
    from leyden.client.gateway import Gateway

logger = logging.getLogger("leyden.client")

BEATS_PER_LEASE = 3
RETRY_S = 1.0
"""After a beat that failed: the gateway may be restarting, and the lease is running out."""


@dataclass
class _Beat:
    claim: Claim
    lost: Callable[[], None]
    due: float


class Heart:
    """Beats for every attempt between `keep` and `release`, and says once when a lease is lost."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._beats: dict[str, _Beat] = {}
        self._closed = False
        self._thread: threading.Thread | None = None

    def keep(self, claim: Claim, lost: Callable[[], None]) -> None:
        """Begin. `lost` is called from this thread, at most once, when the gateway says that the attempt is over."""
        with self._changed:
            self._beats[claim.trace_id] = _Beat(claim, lost, time.monotonic() + claim.lease_s / BEATS_PER_LEASE)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="leyden-heart", daemon=True)
                self._thread.start()
            self._changed.notify()

    def release(self, claim: Claim) -> None:
        """Stop; the attempt has ended or its lease is not wanted."""
        with self._changed:
            self._beats.pop(claim.trace_id, None)

    def close(self) -> None:
        """Stop all."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def after_fork(self) -> None:
        """In a forked child: the leases are the parent's to keep."""
        self._reset()

    def _work(self) -> None:
        while beat := self._next():
            try:
                lease_s = self._gateway.heartbeat(beat.claim)
            except AttemptOverError as error:
                logger.warning("the lease of %s is lost: %s", beat.claim.trace_id, error)
                self.release(beat.claim)
                beat.lost()
            except GatewayUnavailableError as error:
                logger.debug("a heartbeat of %s failed: %s", beat.claim.trace_id, error)
                beat.due = time.monotonic() + min(RETRY_S, beat.claim.lease_s / BEATS_PER_LEASE)
            except GatewayError as error:
                logger.warning("a heartbeat of %s was refused: %s", beat.claim.trace_id, error)
                beat.due = time.monotonic() + beat.claim.lease_s / BEATS_PER_LEASE
            else:
                beat.due = time.monotonic() + lease_s / BEATS_PER_LEASE

    def _next(self) -> _Beat | None:
        """Waits for the beat that is due first; None when closed."""
        with self._changed:
            while not self._closed:
                beat = min(self._beats.values(), key=lambda beat: beat.due, default=None)
                wait_s = None if beat is None else beat.due - time.monotonic()
                if beat is not None and wait_s is not None and wait_s <= 0:
                    return beat
                self._changed.wait(wait_s)
            return None
