"""Administration of a cluster: creates topics from their YAML, reads and sets offsets of consumer groups.

`python -m leyden.kafka.admin` creates the missing topics and exits.
"""

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from leyden.kafka.kept import Commit
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.topics import DEAD_LETTER_SUFFIX, TopicSpec, load_topics
from leyden.settings import ServiceSettings

log = logging.getLogger(__name__)


class TopicMismatchError(RuntimeError):
    """An existing topic's partition count differs from its YAML. Joins by key would break."""


@asynccontextmanager
async def admin_client(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client; closed on exit."""
    client = AIOKafkaAdminClient(**settings.connection())
    try:
        await client.start()
        yield client
    finally:
        await client.close()


def _new_topics(spec: TopicSpec, prefix: str, replication_factor: int) -> list[NewTopic]:
    config = {"cleanup.policy": spec.cleanup_policy, "retention.ms": str(spec.retention_ms)}
    config["max.message.bytes"] = str(KafkaSettings.model_fields["max_request_size"].default)
    main = NewTopic(prefix + spec.name, spec.partitions, replication_factor, topic_configs=config)
    dead_config = config | {"cleanup.policy": "delete"}
    dead = NewTopic(prefix + spec.name + DEAD_LETTER_SUFFIX, 1, replication_factor, topic_configs=dead_config)
    return [main, dead]


async def ensure_topics(settings: KafkaSettings, prefix: str = "", replication_factor: int = 1) -> list[str]:
    """Create missing topics and return their names.

    Raises `TopicMismatchError` if an existing topic's partition count differs, `KafkaError` if the cluster refuses.
    """
    wanted = [topic for spec in load_topics().values() for topic in _new_topics(spec, prefix, replication_factor)]
    async with admin_client(settings) as admin:
        existing = set(await admin.list_topics())
        missing = [topic for topic in wanted if topic.name not in existing]
        await _check_partitions(admin, [topic for topic in wanted if topic.name in existing])
        if missing:
            response = await admin.create_topics(missing)
            for name, code, *rest in response.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    raise for_code(code)(f"cannot create topic {name}: {rest[0] if rest else ''}")
            await _leaders_elected(admin, [topic.name for topic in missing])
    return [topic.name for topic in missing]


async def topics_under(settings: KafkaSettings, prefix: str) -> list[str]:
    """Those of Leyden's topics that exist with this prefix (full names). Raises `KafkaError`."""
    async with admin_client(settings) as admin:
        return await _existing(admin, prefix)


async def delete_topics(settings: KafkaSettings, prefix: str) -> None:
    """Delete Leyden's topics with this prefix, and wait until they are gone. Raises `KafkaError`, TimeoutError."""
    if not prefix:
        raise ValueError("topics without a prefix are the live ones, which are never deleted")
    async with admin_client(settings) as admin, asyncio.timeout(30.0):
        while there := await _existing(admin, prefix):
            await admin.delete_topics(there)
            await asyncio.sleep(0.1)


async def _existing(admin: AIOKafkaAdminClient, prefix: str) -> list[str]:
    known = {topic.name for spec in load_topics().values() for topic in _new_topics(spec, prefix, 1)}
    return sorted(known & set(await admin.list_topics()))


async def _check_partitions(admin: AIOKafkaAdminClient, wanted: list[NewTopic]) -> None:
    described = await admin.describe_topics([topic.name for topic in wanted]) if wanted else []
    counts = {topic["topic"]: len(topic["partitions"]) for topic in described}
    for topic in wanted:
        if (have := counts[topic.name]) != topic.num_partitions:
            raise TopicMismatchError(f"topic {topic.name} has {have} partitions, its YAML says {topic.num_partitions}")


async def _leaders_elected(admin: AIOKafkaAdminClient, names: list[str], timeout_s: float = 30.0) -> None:
    """Wait until every partition of `names` has a leader. Raises TimeoutError after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while any(  # noqa: ASYNC110 - Kafka sends no notification
            t["error_code"] or not t["partitions"] for t in await admin.describe_topics(names)
        ):
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _consumer(settings: KafkaSettings, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer that subscribes to nothing, stopped at the end."""
    consumer = AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **settings.connection())
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def set_group_offsets(settings: KafkaSettings, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Set the committed offsets of `group`. Raises `KafkaError` if the group has a running member."""
    async with _consumer(settings, group) as consumer:
        consumer.assign(list(offsets))
        await consumer.commit(dict(offsets))


async def end_offsets(settings: KafkaSettings, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """The offset after the last record of each partition."""
    wanted = list(partitions)
    if not wanted:
        return {}
    async with _consumer(settings) as consumer:
        return dict(await consumer.end_offsets(wanted))


async def stored_ranges(
    settings: KafkaSettings, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, tuple[int, int]]:
    """First stored offset and the offset after the last record, for each partition that is not empty."""
    wanted = list(partitions)
    if not wanted:
        return {}
    async with _consumer(settings) as consumer:
        first, ends = await consumer.beginning_offsets(wanted), await consumer.end_offsets(wanted)
    return {tp: (first[tp], end) for tp, end in ends.items() if end > first[tp]}


async def group_commits(
    settings: KafkaSettings, group: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, Commit]:
    """Commits of `group` (full name) for those of `partitions` that have one."""
    async with admin_client(settings) as admin:
        found = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
    return {tp: Commit.parse(one.offset, one.metadata) for tp, one in found.items() if one.offset >= 0}


async def committed_offsets(
    settings: KafkaSettings, group: str, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """Committed offset of `group` (full name) for each of `partitions`; 0 where it has committed none."""
    wanted = list(partitions)
    commits = await group_commits(settings, group, wanted)
    return {tp: commits[tp].offset if tp in commits else 0 for tp in wanted}


async def topic_partitions(settings: KafkaSettings, topics: Iterable[str]) -> list[TopicPartition]:
    """Every partition of `topics` (full names). Raises `KafkaError` for one that does not exist."""
    names = list(topics)
    async with admin_client(settings) as admin:
        described = await admin.describe_topics(names)
    for topic in described:
        if topic["error_code"]:
            raise for_code(topic["error_code"])(f"cannot describe topic {topic['topic']}")
    return sorted(TopicPartition(t["topic"], p["partition"]) for t in described for p in t["partitions"])


def main() -> None:
    """Create all missing topics. Names get the prefix LEYDEN_TOPIC_PREFIX."""
    parser = argparse.ArgumentParser(prog="python -m leyden.kafka.admin", description=main.__doc__)
    parser.add_argument(
        "--replication-factor", type=int, default=1, help="copies of each partition (3 on a real cluster)"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    try:
        created = asyncio.run(ensure_topics(KafkaSettings(), ServiceSettings().topic_prefix, args.replication_factor))
    except (KafkaError, TopicMismatchError) as error:
        raise SystemExit(f"cannot create topics: {error}") from error
    log.info("created %d topics", len(created))


if __name__ == "__main__":
    main()
