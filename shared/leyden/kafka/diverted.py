"""Which records are in the dead letters already, for readers without a group: they meet every record at each start."""

from collections.abc import Mapping, Set

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from leyden.kafka.admin import topic_partitions
from leyden.kafka.delivered import ORIGIN_HEADER, Retry
from leyden.kafka.reading import LogReader
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.topics import DEAD_LETTER_SUFFIX


class DivertedRecords:
    """Reads the dead letters of a topic when asked, each of them once. Two replicas that ask in the same moment may
    both hear that a record is not there.
    """

    def __init__(self, settings: KafkaSettings, prefix: str) -> None:
        self._settings = settings
        self._prefix = prefix
        self._origins: dict[str, set[str]] = {}
        self._read: dict[TopicPartition, int] = {}

    async def among(self, topic: str, origins: Set[str]) -> Set[str]:
        """Those of `origins` whose records are in the dead letters of `topic`. Raises `Retry` while Kafka is away."""
        known = self._origins.setdefault(topic, set())
        if not origins <= known:
            try:
                await self._follow(self._prefix + topic + DEAD_LETTER_SUFFIX, known)
            except KafkaError as error:
                raise Retry(f"cannot read the dead letters of {topic}: {error!r}") from error
        return origins & known

    async def _follow(self, dead_letters: str, origins: set[str]) -> None:
        async with LogReader(self._settings) as reader:
            bounds = await reader.bounds(await topic_partitions(self._settings, [dead_letters]))
            wanted = {tp: (max(first, self._read.get(tp, first)), last) for tp, (first, last) in bounds.items()}
            async for record in reader.stored(wanted):
                origins |= _origin(dict(record.headers))
            self._read |= {tp: last for tp, (_, last) in wanted.items()}


def _origin(headers: Mapping[str, bytes]) -> set[str]:
    found = headers.get(ORIGIN_HEADER)
    return set() if found is None else {found.decode("utf-8", "replace")}
