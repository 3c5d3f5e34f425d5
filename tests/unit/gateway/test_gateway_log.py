"""Kafka, slow or away: who waits, and who is told at once."""

import asyncio

import pytest

from fakes import FakePublisher
from leyden.gateway.adapters.log import KafkaLog
from leyden.kafka import Retry


def slow_kafka() -> FakePublisher:
    """Acknowledges when the test says so."""
    kafka = FakePublisher()
    kafka.acknowledging.clear()
    return kafka


class Seconds:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_while_a_record_waits_for_long_nothing_more_is_taken_in() -> None:
    kafka, clock = slow_kafka(), Seconds()
    log = KafkaLog(kafka, timeout_s=30.0, pause_s=1.0, slow_s=5.0, now=clock)
    log.must_be_up()
    first = asyncio.create_task(log.publish_all([]))
    await asyncio.sleep(0)
    clock.now += 4
    second = asyncio.create_task(log.publish_raw("t", "k", b""))
    await asyncio.sleep(0)
    log.must_be_up()
    clock.now += 2
    with pytest.raises(Retry, match="slow"):
        log.must_be_up()
    kafka.acknowledging.set()
    await asyncio.gather(first, second)
    log.must_be_up()


async def test_a_record_that_takes_too_long_is_given_up_and_said_so_for_a_while() -> None:
    clock = Seconds()
    log = KafkaLog(slow_kafka(), timeout_s=0.01, pause_s=1.0, slow_s=5.0, now=clock)
    with pytest.raises(Retry, match="did not acknowledge"):
        await log.publish_all([])
    with pytest.raises(Retry, match="last record"):
        log.must_be_up()
    clock.now += 1
    log.must_be_up()


async def test_a_caller_who_leaves_is_no_longer_waited_for() -> None:
    clock = Seconds()
    log = KafkaLog(slow_kafka(), timeout_s=30.0, pause_s=1.0, slow_s=5.0, now=clock)
    publishing = asyncio.create_task(log.publish_all([]))
    await asyncio.sleep(0)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    clock.now += 60
    log.must_be_up()
