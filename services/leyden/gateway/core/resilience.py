"""Circuit breakers of servers, and retries of calls. No clock and no randomness.

A circuit opens when its server fails, and lets one call try after a pause. Retries wait with full jitter, limited in
number and by the call's deadline (Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog 2015: a random
wait between 0 and a growing cap, so that calls that failed together do not retry together).
"""

from dataclasses import dataclass
from enum import StrEnum


class CircuitState(StrEnum):
    """State of a circuit."""

    CLOSED = "closed"
    """Calls go through."""
    OPEN = "open"
    """No calls until the pause is over."""
    HALF_OPEN = "half_open"
    """One call tries; its result decides."""


@dataclass(frozen=True, slots=True)
class CircuitRules:
    """When a circuit opens, and for how long."""

    failures: int = 5
    """Number of failures in a row that open it. A reply resets failed calls, a complete one also broken-off replies."""
    pause_s: float = 10.0
    """How long it stays open before one call may try."""


class Circuit:
    """The circuit of one server.

    A call takes a ticket with `begin` and returns it with its result. Tickets of an earlier state do not affect the
    present one: a late reply does not close a circuit that opened meanwhile.
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
        """The state; an open circuit stays open after its pause until a call tries."""
        return self._state

    def opens_in_s(self, now: float) -> float:
        """Seconds until a call may go through; 0 means now."""
        if self._state is CircuitState.CLOSED:
            return 0.0
        if self._state is CircuitState.HALF_OPEN:
            return self._rules.pause_s
        return max(self._opened_at + self._rules.pause_s - now, 0.0)

    def begin(self, now: float) -> int:
        """The ticket of a call; call it only while `opens_in_s` is 0."""
        if self._state is CircuitState.OPEN and self.opens_in_s(now) == 0:
            self._turn(CircuitState.HALF_OPEN)
        return self._era

    def begun(self, ticket: int) -> int:
        """The server began to reply; returns the ticket to use from now on. Other calls may go through already.

        A circuit closed this way is on probation: until a reply is complete, the next failure opens it again.
        """
        if ticket != self._era:
            return ticket
        self._failures = 0
        if self._state is CircuitState.HALF_OPEN:
            self._turn(CircuitState.CLOSED)
            self._broken = self._rules.failures - 1
        return self._era

    def succeeded(self, ticket: int) -> None:
        """The server gave a complete reply."""
        if ticket == self._era:
            self._failures = self._broken = 0
            if self._state is CircuitState.HALF_OPEN:
                self._turn(CircuitState.CLOSED)

    def failed(self, ticket: int, now: float) -> None:
        """The server gave no reply."""
        if ticket == self._era:
            self._failures += 1
            self._count(now)

    def broke(self, ticket: int, now: float) -> None:
        """The server broke off its reply."""
        if ticket == self._era:
            self._broken += 1
            self._count(now)

    def _count(self, now: float) -> None:
        if self._state is CircuitState.HALF_OPEN or self._failures + self._broken >= self._rules.failures:
            self._opened_at = now
            self._turn(CircuitState.OPEN)

    def let_go(self, ticket: int) -> None:
        """The call was cancelled; if it was the trying call, the next one tries."""
        if ticket == self._era and self._state is CircuitState.HALF_OPEN:
            self._turn(CircuitState.OPEN)

    def reset(self) -> None:
        """The server is up, by other evidence than a call."""
        if self._state is not CircuitState.CLOSED or self._failures or self._broken:
            self._turn(CircuitState.CLOSED)

    def _turn(self, state: CircuitState) -> None:
        self._state = state
        self._era += 1
        if state is CircuitState.CLOSED:
            self._failures = self._broken = 0


RETRIED_STATUSES = frozenset({429, 503})
"""Statuses of a call that was not started; other errors would repeat, or have cost work."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """Limits on the tries of one call."""

    tries: int = 4
    """Maximum number of tries, the first one included."""
    base_s: float = 0.2
    """Limit of the first wait; doubled for each further one."""
    cap_s: float = 5.0
    """Upper limit of the waits, except for a longer `Retry-After`."""
    retry_after_cap_s: float = 10.0
    """With a longer `Retry-After` the server's reply is returned to the caller."""


class Retries:
    """The tries of one call, until `deadline`."""

    def __init__(self, rules: RetryRules, deadline: float) -> None:
        self._rules = rules
        self._deadline = deadline
        self._tries = 0
        self._waits = 0

    def left_s(self, now: float) -> float:
        """Seconds until the deadline."""
        return self._deadline - now

    def begin(self) -> None:
        """Count a try."""
        self._tries += 1

    def may_go_on(self, now: float) -> bool:
        """Whether another server may be tried at once."""
        return self._tries < self._rules.tries and now < self._deadline

    def waits_for(self, wanted_s: float) -> bool:
        """Whether to wait for a server with this `Retry-After`."""
        return wanted_s <= self._rules.retry_after_cap_s

    def wait_s(self, now: float, chance: float, wanted_s: float = 0.0) -> float | None:
        """Seconds to wait before the next round, or None for no further try.

        `chance` is a random number in [0, 1); `wanted_s` is the servers' `Retry-After`, which is waited for in full.
        """
        if not self.may_go_on(now) or not self.waits_for(wanted_s):
            return None
        wait: float = wanted_s + chance * min(self._rules.cap_s, self._rules.base_s * 2**self._waits)
        if now + wait >= self._deadline:
            return None
        self._waits += 1
        return wait
