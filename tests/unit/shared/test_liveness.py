"""A consumer is unhealthy when it has work and shows no progress, and only then. The tests move the clock."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from prometheus_client import REGISTRY
from starlette.routing import Route

from consumer_support import FakeConsumer, consumer_of, record
from fakes import FakePublisher
from leyden.clock import ManualClock
from leyden.events.codec import OTLP
from leyden.kafka import Delivered, Retry
from leyden.kafka.lag import LagMeter
from leyden.kafka.liveness import Liveness, Phase, Sample
from leyden.kafka.subscriber import SAMPLE_EVERY_S, Subscription
from leyden.service import Service, health_checks

ONE, TWO = TopicPartition(OTLP, 0), TopicPartition(OTLP, 1)
AFTER_S = 120.0
Batch = Sequence[Delivered[bytes]]


class Watched:
    """A consumer whose Kafka, handler and clock are the test's."""

    def __init__(self, lag: int = 0) -> None:
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.kafka = FakeConsumer({ONE: lag})
        self.may_finish = asyncio.Event()
        self.away = False
        subscription = Subscription((OTLP,), self.on_batch, "g")
        self.heartbeat = subscription.heartbeat
        self.consumer = consumer_of(subscription, FakePublisher(), [], clock=self.clock)

    async def on_batch(self, batch: Batch) -> None:
        if self.away:
            raise Retry("Redis did not answer")
        await self.may_finish.wait()

    async def sample_for(self, seconds: float, beating: bool = False) -> None:
        """Let time pass, with a sample at each due moment."""
        for _ in range(round(seconds / SAMPLE_EVERY_S)):
            self.clock.set(self.clock.now() + timedelta(seconds=SAMPLE_EVERY_S))
            if beating:
                self.heartbeat.beat()
            await self.consumer.sample(self.kafka)

    async def take(self, offset: int) -> "asyncio.Task[None]":
        """A batch that is with the handler when this returns."""
        self.kafka.at[ONE] = offset + 1
        task = asyncio.create_task(self.consumer.consume([record(OTLP, 0, offset, b"x")], self.kafka))
        await asyncio.sleep(0)
        return task

    @property
    def problem(self) -> str | None:
        return self.consumer.stalled(AFTER_S)


async def test_a_consumer_that_silently_stopped_is_unhealthy() -> None:
    watched = Watched(lag=10)
    await watched.sample_for(AFTER_S - SAMPLE_EVERY_S)
    assert watched.problem is None
    await watched.sample_for(SAMPLE_EVERY_S)
    assert watched.problem == (
        "no record of otlp.v1 was finished for 120 s, 10 are waiting, and none is being handled: "
        "the consumer has stopped"
    )


async def test_without_lag_a_consumer_may_be_idle_for_ever() -> None:
    watched = Watched(lag=0)
    await watched.sample_for(10 * AFTER_S)
    assert watched.problem is None


async def test_finished_batches_are_progress_however_long_the_backlog() -> None:
    watched = Watched(lag=10_000)
    watched.may_finish.set()
    for offset in range(10):
        await watched.sample_for(AFTER_S - SAMPLE_EVERY_S)
        await (await watched.take(offset))
        await watched.sample_for(SAMPLE_EVERY_S)
        assert watched.problem is None


async def test_a_handler_that_hangs_is_unhealthy_also_where_nothing_else_waits() -> None:
    watched = Watched(lag=1)
    task = await watched.take(0)
    await watched.sample_for(SAMPLE_EVERY_S + AFTER_S)
    assert watched.problem is not None and "the consumer is handling a batch and makes no progress" in watched.problem
    task.cancel()


async def test_a_handler_that_hangs_is_unhealthy_also_while_the_lag_cannot_be_measured() -> None:
    watched = Watched(lag=1)
    watched.kafka.failure = KafkaConnectionError("away")
    task = await watched.take(0)
    await watched.sample_for(SAMPLE_EVERY_S + AFTER_S)
    assert watched.problem is not None and "the consumer is handling a batch and makes no progress" in watched.problem
    task.cancel()


async def test_a_handler_that_takes_long_is_healthy_for_as_long_as_it_shows_progress() -> None:
    watched = Watched(lag=10)
    task = await watched.take(0)
    await watched.sample_for(10 * AFTER_S, beating=True)
    assert watched.problem is None
    await watched.sample_for(AFTER_S)
    assert watched.problem is not None
    task.cancel()


async def test_a_batch_that_waits_for_a_store_is_healthy_and_readiness_says_what_it_waits_for() -> None:
    watched = Watched(lag=1)
    watched.away = True
    task = await watched.take(0)
    await watched.sample_for(10 * AFTER_S)
    assert watched.problem is None
    assert watched.consumer.waiting_for == "waiting: Redis did not answer"
    watched.away = False
    watched.may_finish.set()
    await task
    assert watched.consumer.waiting_for is None


async def test_a_measurement_that_fails_makes_nothing_unhealthy() -> None:
    watched = Watched(lag=10)
    watched.kafka.failure = KafkaConnectionError("away")
    await watched.sample_for(10 * AFTER_S)
    assert watched.problem is None


async def test_a_measurement_that_fails_now_and_then_does_not_hide_a_consumer_that_stopped() -> None:
    watched = Watched(lag=10)
    for _ in range(24):
        watched.kafka.failure = KafkaConnectionError("away")
        await watched.sample_for(5 * SAMPLE_EVERY_S)
        watched.kafka.failure = None
        await watched.sample_for(SAMPLE_EVERY_S)
    assert watched.problem is not None and "10 are waiting" in watched.problem


async def test_where_nobody_looks_any_more_the_service_is_unhealthy() -> None:
    watched = Watched(lag=0)
    await watched.sample_for(AFTER_S)
    watched.clock.set(watched.clock.now() + timedelta(seconds=AFTER_S))
    assert watched.problem == "the lag of otlp.v1 has not been measured for 120 s"


def test_a_machine_that_slept_has_seen_nobody_stall() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    liveness = Liveness("otlp.v1", clock.monotonic, SAMPLE_EVERY_S)
    liveness.add(Sample(lag=10, phase=Phase.IDLE, progress=0))
    clock.set(clock.now() + timedelta(hours=8))
    liveness.add(Sample(lag=10, phase=Phase.IDLE, progress=0))
    assert liveness.stalled(AFTER_S) is None


def test_offsets_that_kafka_does_not_take_are_a_fault_only_while_kafka_answers() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    liveness = Liveness("otlp.v1", clock.monotonic, SAMPLE_EVERY_S)

    def sample_for(seconds: float, lag: int | None) -> None:
        for _ in range(round(seconds / SAMPLE_EVERY_S)):
            clock.set(clock.now() + timedelta(seconds=SAMPLE_EVERY_S))
            liveness.add(Sample(lag, Phase.COMMITTING, progress=1))

    sample_for(10 * AFTER_S, lag=None)
    assert liveness.stalled(AFTER_S) is None
    sample_for(AFTER_S, lag=1)
    assert liveness.stalled(AFTER_S) is not None


def gauge(partition: int) -> float | None:
    return REGISTRY.get_sample_value("leyden_consumer_lag_records", {"topic": OTLP, "partition": str(partition)})


async def away(_: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    raise KafkaConnectionError("away")


async def hanging(_: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    await asyncio.Event().wait()
    raise AssertionError("never reached")


async def test_lag_counts_what_is_fetched_and_not_finished() -> None:
    meter = LagMeter("", away)
    kafka = FakeConsumer({ONE: 10, TWO: 4})
    kafka.at = {ONE: 10, TWO: 1}
    assert await meter.measure(kafka, {ONE: 7}) == 6
    assert (gauge(0), gauge(1)) == (3, 3)
    assert await meter.measure(kafka, {}) == 3
    assert (gauge(0), gauge(1)) == (0, 3)
    await meter.measure(FakeConsumer({}), {})


async def test_the_gauges_of_partitions_that_were_taken_away_go() -> None:
    meter = LagMeter("", away)
    kafka = FakeConsumer({ONE: 10, TWO: 4})
    await meter.measure(kafka, {})
    assert (gauge(0), gauge(1)) == (10, 4)
    del kafka.ends[TWO]
    await meter.measure(kafka, {})
    assert (gauge(0), gauge(1)) == (10, None)
    kafka.failure = KafkaConnectionError("away")
    del kafka.ends[ONE]
    await meter.measure(kafka, {})
    assert gauge(0) is None


async def test_where_the_consumers_connection_is_dead_kafka_is_asked_on_another() -> None:
    async def answers(partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 8)

    kafka = FakeConsumer({ONE: 10})
    kafka.failure = KafkaConnectionError("away")
    assert await LagMeter("", answers).measure(kafka, {}) == 8


async def test_a_measurement_that_hangs_ends_and_is_counted() -> None:
    def failures() -> float:
        return REGISTRY.get_sample_value("leyden_lag_measurement_failures_total") or 0.0

    kafka, before = FakeConsumer({ONE: 10}), failures()
    kafka.failure = KafkaConnectionError("away")
    assert await LagMeter("", hanging, timeout_s=0.01).measure(kafka, {}) is None
    assert failures() == before + 1


class Lost(FakeConsumer):
    """A consumer that never learns where its partition is read from."""

    async def position(self, partition: TopicPartition) -> int:
        await asyncio.Event().wait()
        raise AssertionError("never reached")


async def test_a_consumer_that_does_not_find_its_position_is_behind_by_all_records() -> None:
    assert await LagMeter("", away, timeout_s=0.01).measure(Lost({ONE: 10}), {}) == 10


async def test_readiness_says_what_a_handler_waits_for_and_goes_back_to_ready() -> None:
    watched = Watched()
    watched.away = True
    watched.consumer.caught_up.set()
    service = Service(subscriptions=[watched.consumer.subscription])
    alive, ready = health_checks(service, [watched.consumer], AFTER_S)
    assert await ready() is None
    task = await watched.take(0)
    assert await ready() == "waiting: Redis did not answer"
    assert await alive() is None
    with_routes = Service(routes=[Route("/", endpoint=Watched)])
    assert await health_checks(with_routes, [watched.consumer], AFTER_S)[1]() is None
    watched.away = False
    watched.may_finish.set()
    await task
    assert await ready() is None


async def test_a_service_that_reads_its_backlog_is_not_ready_yet() -> None:
    watched = Watched()
    _, ready = health_checks(Service(), [watched.consumer], AFTER_S)
    assert await ready() == "still reading the backlog of otlp.v1"
    watched.consumer.caught_up.set()
    assert await ready() is None
