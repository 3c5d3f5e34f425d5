"""What a key's limits mean for one call: the headers that tell it, and the 429 when there is nothing left."""

from dataclasses import dataclass

from leyden.events import KeyLimits
from leyden.gateway.core.refusals import Refusal

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Level:
    """What a key has left after it asked for one call; each bucket fills evenly, in one minute, up to its limit."""

    admitted: bool
    requests: float = 0.0
    tokens: float = 0.0
    """Below zero when calls used more than was left: no call knows beforehand how long its answer will be."""


def shown(limits: KeyLimits, level: Level) -> dict[str, str]:
    """The `x-ratelimit-…` headers, as OpenAI's clients read them."""
    headers: dict[str, str] = {}
    for what, limit, left in _buckets(limits, level):
        headers[f"x-ratelimit-limit-{what}"] = str(limit)
        headers[f"x-ratelimit-remaining-{what}"] = str(max(0, int(left)))
        headers[f"x-ratelimit-reset-{what}"] = _duration((limit - left) * MINUTE_S / limit)
    return headers


def too_many(limits: KeyLimits, level: Level) -> Refusal:
    """The 429 of a call that was not admitted, saying when one will be."""
    waits = {what: max(0.0, (1 - left) * MINUTE_S / limit) for what, limit, left in _buckets(limits, level)}
    what = max(waits, key=lambda name: waits[name])
    limit = limits.requests_per_minute if what == "requests" else limits.tokens_per_minute
    message = f"this key may use {limit} {what} a minute; try again in {_duration(waits[what])}"
    return Refusal(429, "rate_limit_exceeded", message, retry_after_s=max(1.0, waits[what]))


def _buckets(limits: KeyLimits, level: Level) -> list[tuple[str, int, float]]:
    both = (
        ("requests", limits.requests_per_minute, level.requests),
        ("tokens", limits.tokens_per_minute, level.tokens),
    )
    return [(what, limit, left) for what, limit, left in both if limit is not None]


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `0s`, `120ms`, `6m0s`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms" if seconds > 0 else "0s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
