"""When a server is set aside (circuits), and when a call is tried again (retries). No clock and no randomness.

A circuit opens when its server fails, and lets one call try after a pause. A retry waits with full jitter, within a
number of tries and the call's deadline (Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog 2015: a
random wait between 0 and a growing cap keeps those who failed together from coming back together).
"""

from dataclasses import dataclass
from enum import StrEnum


class CircuitState(StrEnum):
    """Where a circuit stands."""

    CLOSED = "closed"
    """Calls go through."""
    OPEN = "open"
    """None goes through until the pause is over."""
    HALF_OPEN = "half_open"
    """One call is trying; its outcome decides."""


@dataclass(frozen=True, slots=True)
class CircuitRules:
    """When a circuit opens, and for how long."""

    failures: int = 5
    """So many failures in a row open it: calls with no answer between them, answers broken off with no whole one."""
    pause_s: float = 10.0
    """How long it stays open before one call may try."""


class Circuit:
    """The circuit of one server.

    A call takes a ticket with `begin` and gives it back with what became of it. Tickets of an earlier state say
    nothing about the present one: an answer that comes late does not close a circuit that opened meanwhile.
    """

    def __init__(self, rules: CircuitRules) -> None:
        self._rules = rules
        self._failures = 0
        self._broken = 0
        self._era = 0
        self._state = CircuitState.CLOSED
        self._opened_at = 0.0

    @property
    def state(self) -> CircuitState:
        """Where it stands; an open one whose pause is over stays open until a call tries."""
        return self._state

    def opens_in_s(self, now: float) -> float:
        """Seconds until a call may go through; 0 when one may now."""
        if self._state is CircuitState.CLOSED:
            return 0.0
        if self._state is CircuitState.HALF_OPEN:
            return self._rules.pause_s
        return max(self._opened_at + self._rules.pause_s - now, 0.0)

    def begin(self, now: float) -> int:
        """A call goes through: its ticket. Only to be asked for while `opens_in_s` is 0."""
        if self._state is CircuitState.OPEN and self.opens_in_s(now) == 0:
            self._turn(CircuitState.HALF_OPEN)
        return self._era

    def begun(self, ticket: int) -> int:
        """The server has begun to answer: the ticket from now on. A trying call need not end for others to go through.

        What closes so is on probation: until an answer came whole, the next failure opens it again.
        """
        if ticket != self._era:
            return ticket
        self._failures = 0
        if self._state is CircuitState.HALF_OPEN:
            self._turn(CircuitState.CLOSED)
            self._broken = self._rules.failures - 1
        return self._era

    def succeeded(self, ticket: int) -> None:
        """The server answered, to the end."""
        if ticket == self._era:
            self._failures = self._broken = 0
            if self._state is CircuitState.HALF_OPEN:
                self._turn(CircuitState.CLOSED)

    def failed(self, ticket: int, now: float) -> None:
        """The server did not answer."""
        if ticket == self._era:
            self._failures += 1
            self._count(now)

    def broke(self, ticket: int, now: float) -> None:
        """The server broke off an answer that it had begun."""
        if ticket == self._era:
            self._broken += 1
            self._count(now)

    def _count(self, now: float) -> None:
        if self._state is CircuitState.HALF_OPEN or self._failures + self._broken >= self._rules.failures:
            self._opened_at = now
            self._turn(CircuitState.OPEN)

    def let_go(self, ticket: int) -> None:
        """Nobody waited for the outcome: where it was the trying call, the next one tries."""
        if ticket == self._era and self._state is CircuitState.HALF_OPEN:
            self._turn(CircuitState.OPEN)

    def reset(self) -> None:
        """The server is known to be up by other evidence than a call."""
        if self._state is not CircuitState.CLOSED or self._failures or self._broken:
            self._turn(CircuitState.CLOSED)

    def _turn(self, state: CircuitState) -> None:
        self._state = state
        self._era += 1
        if state is CircuitState.CLOSED:
            self._failures = self._broken = 0


RETRIED_STATUSES = frozenset({429, 503})
"""Statuses that say "not now" of a call that was not begun; every other error would come again or has cost work."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """Bounds of the tries of one call."""

    tries: int = 4
    """How often servers are asked for one call at most, the first time included."""
    base_s: float = 0.2
    """The first wait is at most this long, each further one at most twice the one before."""
    cap_s: float = 5.0
    """No wait is longer, but for a longer `Retry-After`."""
    retry_after_cap_s: float = 10.0
    """A server that wants a longer pause than this is not waited for: its answer goes to the caller."""


class Retries:
    """The tries of one call, which must be over at `deadline`."""

    def __init__(self, rules: RetryRules, deadline: float) -> None:
        self._rules = rules
        self._deadline = deadline
        self._tries = 0
        self._waits = 0

    def left_s(self, now: float) -> float:
        """Seconds until the deadline."""
        return self._deadline - now

    def begin(self) -> None:
        """A server is asked."""
        self._tries += 1

    def may_go_on(self, now: float) -> bool:
        """Whether another server may be asked at once."""
        return self._tries < self._rules.tries and now < self._deadline

    def waits_for(self, wanted_s: float) -> bool:
        """Whether a server that wants such a pause is waited for."""
        return wanted_s <= self._rules.retry_after_cap_s

    def wait_s(self, now: float, chance: float, wanted_s: float = 0.0) -> float | None:
        """How long to wait before a server is asked again, or None when none shall be.

        `chance` is a random number in [0, 1); `wanted_s` is what the servers' `Retry-After` says: waited for in full.
        """
        if not self.may_go_on(now) or not self.waits_for(wanted_s):
            return None
        wait: float = wanted_s + chance * min(self._rules.cap_s, self._rules.base_s * 2**self._waits)
        if now + wait >= self._deadline:
            return None
        self._waits += 1
        return wait
