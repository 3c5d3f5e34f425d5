"""Reads single model calls by topic, partition and offset, for joins."""

from collections.abc import Iterable
from typing import Self

from leyden.events import ModelCallRecorded
from leyden.events.codec import MODEL_CALLS
from leyden.reading.location import LogLocation
from leyden.reading.log import Log


class CallReader:
    """Reads single calls from the live topic. Use as an async context manager."""

    def __init__(self, location: LogLocation) -> None:
        self._log = Log(location)

    async def __aenter__(self) -> Self:
        await self._log.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._log.__aexit__()

    async def at(self, origins: Iterable[str]) -> dict[str, ModelCallRecorded]:
        """The calls at `origins` (`model-calls.v1/partition/offset`), without those that Kafka has deleted."""
        wanted: dict[int, set[int]] = {}
        for origin in origins:
            topic, partition, offset = origin.rsplit("/", 2)
            if topic == MODEL_CALLS:
                wanted.setdefault(int(partition), set()).add(int(offset))
        found = [one async for one in self._log.read_at(MODEL_CALLS, wanted)]
        return {
            f"{MODEL_CALLS}/{one.partition}/{one.offset}": one.event
            for one in found
            if isinstance(one.event, ModelCallRecorded)
        }
