"""How far a chain of consumer groups has read, from the offsets that they commit to a real broker."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from leyden.events.codec import OTLP, ROLLOUTS, SPANS, VERDICTS
from leyden.kafka import Retry
from leyden.kafka.admin import admin_client, ensure_topics, set_group_offsets
from leyden.kafka.progress import KafkaProgress, Stage
from leyden.kafka.settings import KafkaSettings
from leyden.reward.judges.progress import verdicts_read

pytestmark = pytest.mark.integration


class Cluster:
    """A real broker, on which tests write records and commit offsets as services do."""

    def __init__(self, settings: KafkaSettings, prefix: str, producer: AIOKafkaProducer) -> None:
        self.settings, self.prefix, self.producer = settings, prefix, producer

    async def write(self, topic: str, partition: int = 0) -> None:
        await self.producer.send_and_wait(self.prefix + topic, b"{}", partition=partition)

    async def commit(self, group: str, topic: str, offset: int, partition: int = 0) -> None:
        await set_group_offsets(
            self.settings, self.prefix + group, {TopicPartition(self.prefix + topic, partition): offset}
        )

    async def expire(self, topic: str, partition: int = 0) -> None:
        async with admin_client(self.settings) as admin:
            tp = TopicPartition(self.prefix + topic, partition)
            await admin.delete_records({tp: RecordsToDelete(before_offset=-1)})


@pytest.fixture
async def cluster(kafka_servers: str, topic_prefix: str) -> AsyncIterator[Cluster]:
    settings = KafkaSettings(bootstrap_servers=kafka_servers)
    await ensure_topics(settings, topic_prefix)
    producer = AIOKafkaProducer(**settings.connection())
    await producer.start()
    found = Cluster(settings, topic_prefix, producer)
    await found.commit("first", OTLP, 0)  # a broker that has just started has no coordinator before
    yield found
    await producer.stop()


@pytest.fixture
async def progress(cluster: Cluster) -> AsyncIterator[KafkaProgress]:
    found = KafkaProgress(cluster.settings, cluster.prefix, (Stage("one", (OTLP,)), Stage("two", (SPANS, ROLLOUTS))))
    yield found
    await found.close()


async def test_an_empty_log_has_been_read(progress: KafkaProgress) -> None:
    await progress.begin()
    assert await progress.done()


async def test_each_stage_must_have_read_what_the_one_before_it_wrote(
    cluster: Cluster, progress: KafkaProgress
) -> None:
    await cluster.write(OTLP, partition=2)
    await cluster.write(ROLLOUTS)
    await progress.begin()
    assert not await progress.done()
    await cluster.write(SPANS, partition=2)
    await cluster.commit("one", OTLP, 1, partition=2)
    assert not await progress.done()
    await cluster.commit("two", SPANS, 1, partition=2)
    assert not await progress.done()
    await cluster.commit("two", ROLLOUTS, 1)
    assert await progress.done()


async def test_what_came_after_the_beginning_is_not_waited_for(cluster: Cluster, progress: KafkaProgress) -> None:
    await cluster.write(OTLP)
    await progress.begin()
    await cluster.write(OTLP)
    await cluster.commit("one", OTLP, 1)
    assert await progress.done()
    await progress.begin()
    assert not await progress.done()


async def test_records_that_expired_unread_are_not_waited_for(cluster: Cluster, progress: KafkaProgress) -> None:
    await cluster.write(OTLP)
    await cluster.expire(OTLP)
    await progress.begin()
    assert await progress.done()


async def test_judges_wait_for_the_verdicts_that_are_recorded(cluster: Cluster) -> None:
    await cluster.write(VERDICTS, partition=1)
    waiting = asyncio.create_task(verdicts_read(cluster.settings, cluster.prefix, "judges", every_s=0.05))
    done, _ = await asyncio.wait([waiting], timeout=2)
    assert not done
    await cluster.commit("judges", VERDICTS, 1, partition=1)
    await asyncio.wait_for(waiting, 10)


async def test_a_broker_that_is_away_means_try_again() -> None:
    nowhere = KafkaProgress(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "", (Stage("one", (OTLP,)),))
    for _ in range(2):
        with pytest.raises(Retry):
            await nowhere.begin()
    await nowhere.close()
