"""Follows topics from their beginning: each poll returns what was written since the last one."""

from collections.abc import AsyncIterator, Mapping, Sequence

from leyden.reading.log import Log, Recorded, Wanted


class Follower:
    """Reads `topics` of a log, each record once. `wanted` limits a topic to some of its records, before decoding."""

    def __init__(self, log: Log, topics: Sequence[str], wanted: Mapping[str, Wanted] | None = None) -> None:
        self._log = log
        self._topics = topics
        self._wanted = wanted or {}
        self._next: dict[str, dict[int, int]] = {topic: {} for topic in topics}

    async def poll(self) -> AsyncIterator[Recorded]:
        """The new events up to the present ends of the topics, one topic after another.

        Raises `KafkaError` if Kafka is unavailable; the next poll then goes on where this one stopped.
        """
        for topic in self._topics:
            seen = self._next[topic]
            async for one in self._log.read(topic, wanted=self._wanted.get(topic), seen=seen):
                yield one
