"""The name of a replay: the prefix of its topics and Redis keys, and its folder. A failed replay leaves it free."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from leyden.kafka.admin import delete_topics, ensure_topics, topics_under
from leyden.kafka.delivered import Retry
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.types import KafkaError
from leyden.replay.past import REPORT
from leyden.stack.errors import StackError
from leyden.stack.locks import try_lock
from leyden.state import make_redis, redis_or_retry

LOCK, STARTED = "lock", "started"
MADE = (STARTED, "checkpoints", "run.yaml")
"""What a replay makes in its folder before its report, other than logs."""


class ReplayName:
    """One name, on one Kafka and Redis. Its replay is `folder`'s."""

    def __init__(self, name: str, folder: Path, kafka: KafkaSettings, redis_url: str) -> None:
        self.name, self.folder = name, folder
        self.prefix = f"{name}."
        self._kafka, self._redis_url = kafka, redis_url

    @asynccontextmanager
    async def taken(self, live_prefix: str, tell: Callable[[str], None]) -> AsyncIterator[None]:
        """Make the replay's topics. If the block fails or is cancelled, everything is deleted again but its logs.

        A replay that was killed is deleted when its name is used again. Raises StackError if the name belongs to a
        finished or running replay, or to topics that no replay of this stack made.
        """
        lock = try_lock(self.folder / LOCK)
        if lock is None:
            raise StackError(f"A replay named {self.name} is running; wait for it or choose another --name.")
        try:
            await self._take(live_prefix)
            try:
                yield
            except BaseException:
                tell(f"deleting the topics under {self.prefix}")
                await asyncio.shield(self._free_after_failure(tell))
                raise
        finally:
            os.close(lock)

    async def _take(self, live_prefix: str) -> None:
        there = await topics_under(self._kafka, self.prefix)
        killed = (self.folder / STARTED).exists() and not (self.folder / REPORT).exists()
        if self.prefix == live_prefix or (there and not killed):
            raise StackError(f"A replay named {self.name} exists already; choose another --name.")
        if killed:
            await self.free()
        (self.folder / STARTED).touch()
        await ensure_topics(self._kafka, self.prefix)

    async def free(self) -> None:
        """Delete the replay's topics, its keys in Redis, and its folder but for the logs."""
        await delete_topics(self._kafka, self.prefix)
        await _delete_keys(self._redis_url, self.prefix)
        for name in MADE:
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    async def _free_after_failure(self, tell: Callable[[str], None]) -> None:
        """As `free`. If that fails, the next replay of this name does it."""
        try:
            await self.free()
        except (KafkaError, Retry, TimeoutError, OSError) as error:
            tell(f"The topics under {self.prefix} could not be deleted: {error}")


async def _delete_keys(redis_url: str, prefix: str) -> None:
    """Delete the keys of Redis that begin with `prefix`. Raises `Retry`."""
    redis = make_redis(redis_url)
    try:
        with redis_or_retry():
            async for key in redis.scan_iter(match=f"{prefix}*", count=1_000):
                await redis.unlink(key)
    finally:
        await redis.aclose()
