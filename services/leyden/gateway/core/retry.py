"""Whether a call is tried again, and after how long: full jitter, bounded by tries and by the call's deadline.

Full jitter after Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog 2015: a random wait between 0
and an exponentially growing cap keeps those who failed together from coming back together. Chance and time are given.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

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


def retry_after_s(header: str | None, now: datetime) -> float:
    """The seconds that a `Retry-After` asks for, as a number or as a date; 0 for what is neither (RFC 9110, 10.2.3)."""
    text = (header or "").strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((moment - now).total_seconds(), 0.0)
