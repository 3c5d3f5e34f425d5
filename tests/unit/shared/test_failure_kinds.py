"""What follows from what a handler raises: dead letters for named records, another try, or the end of the process."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from consumer_support import FakeConsumer, consumer_of, record
from fakes import FakePublisher
from leyden.events import Event, RewardsCompleted
from leyden.events.codec import OTLP, REWARDS, encode
from leyden.kafka import Delivered, Poison, Retry
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import ERROR_HEADER, ORIGIN_HEADER, BatchHandler, RawBatchHandler
from leyden.kafka.loop import BatchLoop, LoopSettings, TooManyDeadLettersError
from leyden.kafka.subscriber import FATAL_EXIT, Subscription

ONE, TWO = TopicPartition(REWARDS, 0), TopicPartition(REWARDS, 1)
GARBAGE = b"{not json"
Batch = Sequence[Delivered[Event]]


def completed(offset: int) -> RewardsCompleted:
    return RewardsCompleted(
        event_id=f"e{offset}", event_time=datetime(2026, 1, 1, tzinfo=UTC), producer="test", rollout_id="r", attempt=0,
        reward_ids=[],
    )  # fmt: skip


def good(offset: int, partition: int = 0) -> ConsumerRecord:
    return record(REWARDS, partition, offset, encode(completed(offset)))


def bad(offset: int) -> ConsumerRecord:
    return record(REWARDS, 0, offset, GARBAGE)


class Run:
    """One consumer and what it leaves."""

    def __init__(self, handler: BatchHandler | RawBatchHandler, topic: str = REWARDS) -> None:
        self.dead = FakePublisher()
        self.exits: list[int] = []
        self.kafka = FakeConsumer({ONE: 10, TWO: 10, TopicPartition(OTLP, 0): 10})
        self.subscription = Subscription((topic,), handler, "g")
        self.consumer = consumer_of(self.subscription, self.dead, self.exits)

    async def consume(self, *records: ConsumerRecord) -> None:
        await self.consumer.consume(records, self.kafka)

    @property
    def origins(self) -> list[str]:
        return [headers[ORIGIN_HEADER] for headers in self.dead.raw_headers]


class Picky:
    """A handler that calls one record after the other poisonous; `took` are the batches that it handled."""

    def __init__(self, *poisonous: int) -> None:
        self.poisonous = poisonous
        self.took: list[list[int]] = []

    async def __call__(self, batch: Sequence[Delivered[object]]) -> None:
        for one in batch:
            if one.offset in self.poisonous:
                raise Poison(f"number {one.offset} is out of range", one)
        self.took.append([one.offset for one in batch])


async def test_records_that_a_handler_names_are_dead_letters_and_the_rest_is_handled_together() -> None:
    handler = Picky(1, 3)
    run = Run(handler)
    await run.consume(*map(good, range(5)))
    assert handler.took == [[0, 2, 4]]
    assert run.origins == ["rewards.v1/0/1", "rewards.v1/0/3"]
    assert [headers[ERROR_HEADER] for headers in run.dead.raw_headers] == [
        "Poison: number 1 is out of range",
        "Poison: number 3 is out of range",
    ]
    assert [value for _, _, value in run.dead.raw] == [good(1).value, good(3).value]
    assert run.kafka.commits == [{ONE: 5}]
    assert run.exits == []


async def test_a_poisonous_record_of_a_topic_that_is_not_json_keeps_its_bytes() -> None:
    handler = Picky(1)
    run = Run(handler, OTLP)
    await run.consume(record(OTLP, 0, 0, b"\x01"), record(OTLP, 0, 1, b"\xff\x00"))
    assert handler.took == [[0]]
    assert run.dead.raw == [(f"{OTLP}.dlq", "key", b"\xff\x00")]


async def test_a_bug_stops_the_process_with_nothing_diverted_and_nothing_committed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(batch: Batch) -> None:
        raise KeyError("usage")

    run = Run(handler)
    with caplog.at_level(logging.CRITICAL), pytest.raises(KeyError):
        await run.consume(good(0), bad(1), good(2), good(7, partition=1))
    assert run.exits == [FATAL_EXIT]
    assert (run.dead.raw, run.kafka.commits) == ([], [])
    [line] = caplog.records
    assert line.levelno == logging.CRITICAL
    assert line.exc_text is not None and "KeyError: 'usage'" in line.exc_text
    assert "while handling rewards.v1/0/0-2, rewards.v1/1/7" in line.exc_text


async def test_a_bug_that_comes_up_after_a_poisonous_record_was_found_diverts_nothing_either() -> None:
    async def handler(batch: Batch) -> None:
        if len(batch) == 3:
            raise Poison("refused", batch[0])
        raise ValueError("a bug")

    run = Run(handler)
    with pytest.raises(ValueError, match="a bug"):
        await run.consume(*map(good, range(3)))
    assert (run.exits, run.dead.raw, run.kafka.commits) == ([FATAL_EXIT], [], [])


async def test_a_passing_fault_is_waited_for_however_often_it_comes() -> None:
    left, said = [500], set()

    async def handler(batch: Batch) -> None:
        said.add(run.consumer.waiting_for)
        if left[0]:
            left[0] -= 1
            raise Retry("Redis did not answer")

    run = Run(handler)
    await run.consume(good(0))
    assert said == {None, "waiting: Redis did not answer"}
    assert run.consumer.waiting_for is None
    assert (run.kafka.commits, run.dead.raw, run.exits) == ([{ONE: 1}], [], [])


async def test_poison_for_a_record_that_is_not_in_the_batch_is_a_bug() -> None:
    stranger: Delivered[Event] = Delivered(completed(99), REWARDS, "", 0, 99, "")

    async def handler(batch: Batch) -> None:
        raise Poison("not mine", stranger)

    run = Run(handler)
    with pytest.raises(RuntimeError, match="not in its batch"):
        await run.consume(good(0))
    assert (run.exits, run.dead.raw) == ([FATAL_EXIT], [])


async def test_a_kill_between_dead_letter_and_commit_writes_the_same_dead_letter_again() -> None:
    run = Run(Picky())
    for _ in range(2):
        await run.consume(bad(0), good(1))
    assert run.dead.raw == [(f"{REWARDS}.dlq", "key", GARBAGE)] * 2
    assert run.origins == ["rewards.v1/0/0"] * 2  # by which a reader knows that it is one


async def test_a_partition_that_is_taken_away_in_mid_handler_is_not_committed_and_the_others_are() -> None:
    async def handler(batch: Batch) -> None:
        del run.kafka.ends[TWO]

    run = Run(handler)
    await run.consume(good(3), good(4, partition=1))
    assert run.kafka.commits == [{ONE: 4}]


def loop_of(handler: Callable[[Batch], object], dead: FakePublisher, limit: int) -> BatchLoop:
    subscription = Subscription((REWARDS,), handler, "g")  # type: ignore[arg-type]
    retry = LoopSettings(0, 0, dead_letter_limit=limit)
    return BatchLoop(
        topics=(REWARDS,),
        handler=subscription.handler,
        decode=subscription.decode,
        publisher=dead,
        claims=ClaimStore("file:///no"),
        retry=retry,
    )


async def test_too_many_dead_letters_in_a_row_stop_the_process_before_the_batch_is_diverted() -> None:
    dead = FakePublisher()
    loop = loop_of(Picky(), dead, limit=4)
    await loop.handle([bad(0), bad(1)])
    await loop.handle([bad(2), bad(3)])
    with pytest.raises(TooManyDeadLettersError, match=r"5 dead letters in a row, the last from rewards\.v1/0/4 "):
        await loop.handle([bad(4)])
    assert len(dead.raw) == 4


async def test_a_record_that_is_handled_begins_the_count_of_dead_letters_anew() -> None:
    dead = FakePublisher()
    loop = loop_of(Picky(), dead, limit=4)
    for _ in range(3):
        await loop.handle([bad(0), bad(1), bad(2), bad(3)])
        await loop.handle([good(4), bad(5)])
    assert len(dead.raw) == 15


async def test_without_a_limit_every_dead_letter_is_kept() -> None:
    dead = FakePublisher()
    await loop_of(Picky(), dead, limit=0).handle([bad(offset) for offset in range(500)])
    assert len(dead.raw) == 500
