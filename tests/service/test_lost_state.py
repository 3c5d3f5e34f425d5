"""Redis is emptied, or comes back with an older copy: what a group has read is read again, whoever is killed."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from consumer_support import record
from fakes import FakePublisher
from leyden.events import Event, RewardsCompleted
from leyden.events.codec import REWARDS, VERDICTS, encode
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import Delivered, Retry
from leyden.kafka.kept import Commit, Positions
from leyden.kafka.loop import LoopSettings
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.subscriber import BatchConsumer, Subscription
from leyden.state import RedisPositions
from unit.reward.reward_builders import T0

GROUP = "g"
"""Partitions of the log."""
A, B = TopicPartition(REWARDS, 0), TopicPartition(REWARDS, 1)


class MemoryPositions:
    """`Positions` in memory."""

    def __init__(self) -> None:
        self.at: dict[TopicPartition, int] = {}

    async def of(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self.at[tp] for tp in partitions if tp in self.at}

    async def begin(self, tp: TopicPartition, offset: int) -> None:
        self.at[tp] = offset

    async def advance(self, steps: Mapping[TopicPartition, tuple[int, int]]) -> None:
        for tp, (start, end) in steps.items():
            if self.at.get(tp, -1) >= start:
                self.at[tp] = max(self.at[tp], end)


def event(partition: int, offset: int) -> RewardsCompleted:
    return RewardsCompleted(
        event_id=f"{partition}/{offset}", event_time=T0, producer="t", rollout_id="r", attempt=0, reward_ids=[]
    )


@dataclass
class World:
    """A log of two partitions, a group's commits, and a Redis with a set of the ids that a service has read."""

    log: dict[TopicPartition, list[ConsumerRecord]] = field(default_factory=lambda: {A: [], B: []})
    commits: dict[TopicPartition, tuple[int, str]] = field(default_factory=dict)
    state: set[str] = field(default_factory=set)
    positions: MemoryPositions = field(default_factory=MemoryPositions)
    copies: list[tuple[set[str], dict[TopicPartition, int]]] = field(default_factory=list)
    during: list[str] = field(default_factory=list)
    """What happens while the next batch is handled."""

    def write(self, tp: TopicPartition, gap: int = 0) -> None:
        """One record, after `gap` offsets that hold none."""
        offset = (self.log[tp][-1].offset + 1 if self.log[tp] else 0) + gap
        self.log[tp].append(record(tp.topic, tp.partition, offset, encode(event(tp.partition, offset))))

    def empty(self) -> None:
        self.state.clear()
        self.positions.at.clear()

    def snapshot(self) -> None:
        self.copies.append((set(self.state), dict(self.positions.at)))

    def restore(self) -> None:
        state, at = self.copies[-1] if self.copies else (set(), {})
        self.state, self.positions.at = set(state), dict(at)

    def everything(self) -> set[str]:
        return {f"{tp.partition}/{one.offset}" for tp, records in self.log.items() for one in records}


class Process:
    """One process of the service: a consumer of both partitions, from what is committed."""

    def __init__(self, world: World, folder: Path = Path("/nowhere")) -> None:
        self.world = world
        self.died: list[int] = []
        self.asked: list[TopicPartition] = []
        """The partitions whose commits Kafka was asked for."""
        self.at = {tp: world.commits.get(tp, (0, ""))[0] for tp in world.log}
        self.fetched: list[ConsumerRecord] = []
        self.consumer = BatchConsumer(
            subscription=Subscription((REWARDS,), self.on_batch, GROUP, positions=world.positions),
            settings=KafkaSettings(),
            publisher=FakePublisher(),
            claims=ClaimStore(f"file://{folder}"),
            prefix="",
            retry=LoopSettings(0, 0),
            die=self.died.append,
            commits=self.commits,
        )

    async def on_batch(self, batch: Sequence[Delivered[Event]]) -> None:
        for happening in self.world.during[:1]:
            getattr(self.world, happening)()
        self.world.during = self.world.during[1:]
        self.world.state |= {one.event.event_id for one in batch}

    async def commits(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Commit]:
        self.asked += partitions
        return {tp: Commit.parse(*self.world.commits[tp]) for tp in partitions if tp in self.world.commits}

    def assignment(self) -> set[TopicPartition]:
        return set(self.at)

    async def position(self, tp: TopicPartition) -> int:
        return self.at[tp]

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at[tp] = offset

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        self.world.commits |= dict(offsets)

    def fetch(self, most: int = 3) -> None:
        """Take the next records, which are handled later."""
        for tp, at in self.at.items():
            found = [one for one in self.world.log[tp] if one.offset >= at][:most]
            if found and not any(one.partition == tp.partition for one in self.fetched):
                self.fetched += found
                self.at[tp] = found[-1].offset + 1

    async def handle(self) -> bool:
        batch, self.fetched = self.fetched, []
        if batch:
            await self.consumer.consume(batch, self)
        return bool(batch)

    async def look(self) -> None:
        await self.consumer.look_for_lost_state(self)


STEPS = ("write a", "write b", "gap", "fetch", "handle", "look", "empty", "snapshot", "restore", "kill", "meanwhile")


@settings(deadline=None, max_examples=600)
@given(st.lists(st.sampled_from(STEPS), max_size=40))
async def test_in_the_end_the_state_holds_every_record(steps: list[str]) -> None:
    world = World()
    process = Process(world)
    for step in steps:
        match step:
            case "write a" | "write b":
                world.write(A if step == "write a" else B)
            case "gap":
                world.write(A, gap=2)
            case "fetch":
                process.fetch()
            case "handle":
                await process.handle()
            case "look":
                await process.look()
            case "empty":
                world.empty()
            case "snapshot":
                world.snapshot()
            case "restore":
                world.restore()
            case "kill":
                process = Process(world)
            case "meanwhile":
                world.during.append("empty")
    world.during.clear()
    for _ in range(100):
        await process.look()
        process.fetch()
        if not await process.handle():
            break
    assert process.died == []
    assert world.state == world.everything()


async def test_a_group_at_rest_notices_too() -> None:
    world = World()
    for _ in range(5):
        world.write(A)
    process = Process(world)
    process.fetch(10)
    await process.handle()
    world.empty()
    await process.look()
    assert world.commits[A] == (0, "began:0"), "whoever takes over now reads it again too"
    process.fetch(10)
    await process.handle()
    assert world.state == world.everything()
    assert world.commits[A] == (5, "began:0")


async def test_a_batch_from_before_the_loss_is_not_taken_for_the_next_one() -> None:
    """It was fetched, then partitions were set back, then it is handled and the process is killed."""
    world = World()
    for _ in range(6):
        world.write(A)
    process = Process(world)
    process.fetch(3)
    await process.handle()
    process.fetch(3)
    world.empty()
    await process.look()
    await process.handle()
    process = Process(world)
    for _ in range(2):
        process.fetch(10)
        await process.handle()
    assert world.state == world.everything()


async def test_a_service_without_loss_reads_nothing_twice() -> None:
    world = World()
    process = Process(world)
    handled = 0
    for round_ in range(5):
        world.write(A, gap=round_)
        world.write(B)
        process.fetch()
        handled += len(process.fetched)
        await process.look()
        await process.handle()
        process = Process(world)
    assert handled == 10


async def test_kafka_is_asked_once_for_the_commits_of_partitions_that_have_none() -> None:
    process = Process(World())
    for _ in range(3):
        await process.look()
    assert sorted(process.asked) == [A, B]
    at = process.at.pop(B)
    await process.look()
    process.at[B] = at
    await process.look()
    assert sorted(process.asked) == [A, B, B], "another replica may have read what comes back from it"


async def test_offsets_that_an_operator_set_are_where_the_state_begins() -> None:
    world = World()
    for _ in range(6):
        world.write(A)
    world.commits[A] = (4, "")
    process = Process(world)
    await process.look()
    process.fetch(10)
    await process.handle()
    assert world.state == {"0/4", "0/5"}
    world.empty()
    process = Process(world)
    await process.look()
    process.fetch(10)
    await process.handle()
    assert world.state == {"0/4", "0/5"}, "a loss leads back to there, not to the beginning"


async def test_while_redis_is_away_nothing_is_handled_and_the_process_lives() -> None:
    world = World()
    world.write(A)
    process = Process(world)
    process.fetch()
    away = True
    kept = world.positions.of

    async def of(partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if away:
            raise Retry("Redis is away")
        return await kept(partitions)

    world.positions.of = of  # type: ignore[method-assign]
    handling = asyncio.create_task(process.handle())
    await process_waits(process)
    assert world.state == set()
    away = False
    await asyncio.wait_for(handling, 10)
    assert world.state == world.everything()
    assert process.died == []


async def process_waits(process: Process) -> None:
    async with asyncio.timeout(5):
        while not process.consumer.waiting_for:
            await asyncio.sleep(0.01)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
async def positions(request: pytest.FixtureRequest, topic_prefix: str) -> AsyncIterator[Positions]:
    if request.param == "memory":
        yield MemoryPositions()
        return
    redis = Redis.from_url(request.getfixturevalue("redis_server_url"))
    yield RedisPositions(redis, f"{topic_prefix}read")
    await redis.aclose()


async def test_a_position_rises_from_what_is_known_and_never_falls(positions: Positions) -> None:
    other = TopicPartition(VERDICTS, 0)
    assert await positions.of([A, B]) == {}
    assert await positions.of([]) == {}
    await positions.advance({A: (0, 5)})
    assert await positions.of([A]) == {}, "a position that is gone is not made up"
    await positions.begin(A, 3)
    await positions.begin(B, 0)
    await positions.advance({A: (3, 5), B: (1, 9)})
    assert await positions.of([A, B, other]) == {A: 5, B: 0}
    await positions.advance({A: (3, 4), B: (0, 2**40)})
    assert await positions.of([A, B]) == {A: 5, B: 2**40}
    await positions.begin(A, 0)
    assert await positions.of([A]) == {A: 0}


async def test_a_store_that_is_away_means_try_again() -> None:
    redis = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2)
    away = RedisPositions(redis, "n")
    for step in (away.of([A]), away.begin(A, 0), away.advance({A: (0, 1)})):
        with pytest.raises(Retry):
            await step
    await redis.aclose()


@pytest.mark.parametrize("metadata", ["", "began:", "began:-1", "began:x", "other", "began:١"])
def test_metadata_of_somebody_else_is_no_beginning(metadata: str) -> None:
    found = Commit.parse(7, metadata)
    assert found.offset == 7
    assert found.began is None or f"began:{found.began}" == metadata
