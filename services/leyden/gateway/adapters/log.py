"""Publisher with a deadline; fails fast while Kafka is slow."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from leyden.kafka import Outgoing, Publisher, Retry


class KafkaLog:
    """A publisher whose callers wait at most `timeout_s`; after a failure it refuses records for `pause_s`.

    It also refuses them while the oldest waiting record has waited for `slow_s`. A record whose caller stopped waiting
    may still be written; nothing refers to it, so it is not part of any evidence.
    """

    def __init__(
        self,
        inner: Publisher,
        timeout_s: float,
        pause_s: float,
        slow_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._slow_s = slow_s
        self._now = now
        self._down_until = 0.0
        self._waiting: dict[object, float] = {}

    def must_be_up(self) -> None:
        now = self._now()
        if now < self._down_until:
            raise Retry("Kafka did not take the last record")
        if now - next(iter(self._waiting.values()), now) > self._slow_s:
            raise Retry(f"Kafka is slow: a record has waited for more than {self._slow_s:g} s")

    async def publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        await self._within(self._inner.publish_all(outgoing))

    async def publish_raw(self, topic: str, key: str, value: bytes, headers: dict[str, str] | None = None) -> None:
        await self._within(self._inner.publish_raw(topic, key, value, headers))

    async def _within(self, publishing: Awaitable[None]) -> None:
        waiting = object()
        self._waiting[waiting] = self._now()
        try:
            async with asyncio.timeout(self._timeout_s):
                await publishing
        except TimeoutError as error:
            self._down_until = self._now() + self._pause_s
            raise Retry(f"Kafka did not acknowledge within {self._timeout_s:g} s") from error
        except Retry:
            self._down_until = self._now() + self._pause_s
            raise
        finally:
            del self._waiting[waiting]
