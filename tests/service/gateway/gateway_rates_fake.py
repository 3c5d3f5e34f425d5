"""`Rates` in memory, and the laws that it and the one on Redis keep."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from leyden.events import KeyLimits
from leyden.gateway.core.keys import Level
from leyden.gateway.ports import Rates
from leyden.kafka import Retry

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class MemoryRates:
    """Two buckets a key. `fail_at` names methods that raise `Retry` the next time; `asked` counts what was asked."""

    def __init__(self) -> None:
        self.buckets: dict[str, tuple[float, float, datetime]] = {}
        self.fail_at: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()

    def _step(self, name: str) -> None:
        self.asked[name] += 1
        if self.fail_at[name]:
            self.fail_at[name] -= 1
            raise Retry(f"Redis failed at {name}")

    def _filled(self, key_id: str, limits: KeyLimits, now: datetime) -> tuple[float, float, datetime]:
        requests, tokens = limits.requests_per_minute or 0, limits.tokens_per_minute or 0
        left, unused, at = self.buckets.get(key_id, (requests, tokens, now))
        now = max(now, at)
        share = (now - at) / timedelta(minutes=1)
        return min(requests, left + share * requests), min(tokens, unused + share * tokens), now

    async def take(self, key_id: str, limits: KeyLimits, now: datetime) -> Level:
        self._step("take")
        requests, tokens, now = self._filled(key_id, limits, now)
        of_requests = limits.requests_per_minute is None or requests >= 1
        of_tokens = limits.tokens_per_minute is None or tokens >= 1
        if not (of_requests and of_tokens):
            return Level(False, requests, tokens)
        if limits.requests_per_minute is not None:
            requests -= 1
        self.buckets[key_id] = (requests, tokens, now)
        return Level(True, requests, tokens)

    async def charge(self, key_id: str, limits: KeyLimits, tokens: int, now: datetime) -> None:
        self._step("charge")
        requests, unused, now = self._filled(key_id, limits, now)
        self.buckets[key_id] = (requests, unused - tokens, now)


class RateLaws:
    """What every `Rates` does; a subclass gives a fresh one as the fixture `rates`."""

    async def test_a_minute_has_so_many_calls_and_they_come_back_evenly(self, rates: Rates) -> None:
        limits = KeyLimits(requests_per_minute=3)
        assert [(await rates.take("k", limits, START)).admitted for _ in range(4)] == [True, True, True, False]
        soon = START + timedelta(seconds=19)
        assert not (await rates.take("k", limits, soon)).admitted
        later = START + timedelta(seconds=21)
        assert [(await rates.take("k", limits, later)).admitted for _ in range(2)] == [True, False]
        much_later = START + timedelta(hours=2)
        assert [(await rates.take("k", limits, much_later)).admitted for _ in range(4)] == [True, True, True, False]

    async def test_a_refused_call_takes_nothing(self, rates: Rates) -> None:
        limits = KeyLimits(requests_per_minute=1)
        await rates.take("k", limits, START)
        levels = [await rates.take("k", limits, START + timedelta(seconds=30)) for _ in range(3)]
        assert [(level.admitted, level.requests) for level in levels] == [(False, pytest.approx(0.5))] * 3

    async def test_tokens_are_charged_afterwards_and_a_debt_is_waited_for(self, rates: Rates) -> None:
        limits = KeyLimits(tokens_per_minute=60)
        assert (await rates.take("k", limits, START)).tokens == 60
        await rates.charge("k", limits, 90, START)
        assert (await rates.take("k", limits, START)) == Level(False, 0, -30)
        assert not (await rates.take("k", limits, START + timedelta(seconds=30))).admitted
        assert (await rates.take("k", limits, START + timedelta(seconds=31))).admitted

    async def test_keys_have_nothing_to_do_with_each_other(self, rates: Rates) -> None:
        limits = KeyLimits(requests_per_minute=1)
        assert (await rates.take("a", limits, START)).admitted
        assert (await rates.take("b", limits, START)).admitted
        assert not (await rates.take("a", limits, START)).admitted

    async def test_a_clock_that_is_behind_fills_nothing_and_empties_nothing(self, rates: Rates) -> None:
        limits = KeyLimits(requests_per_minute=2)
        await rates.take("k", limits, START)
        assert (await rates.take("k", limits, START - timedelta(minutes=5))).admitted
        assert not (await rates.take("k", limits, START)).admitted
