"""What a fault of Kafka's producer means for the service that publishes."""

import asyncio
from pathlib import Path
from typing import cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RecordTooLargeError,
)

from leyden.kafka import Retry, clients
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.settings import KafkaSettings
from roots import SOURCE_ROOTS


class FailingProducer:
    """aiokafka's producer, which fails to take a record or to have it acknowledged."""

    def __init__(self, error: KafkaError, at_once: bool) -> None:
        self._error = error
        self._at_once = at_once

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, *_: object, **__: object) -> "asyncio.Future[object]":
        if self._at_once:
            raise self._error
        sent: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        sent.set_exception(self._error)
        return sent


def publisher(error: KafkaError, at_once: bool, folder: Path) -> KafkaPublisher:
    producer = cast(AIOKafkaProducer, FailingProducer(error, at_once))
    return KafkaPublisher(KafkaSettings(), "", ClaimStore(f"file://{folder}"), producer=lambda *_: producer)


def test_every_producer_waits_for_all_replicas_and_writes_a_record_once(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, object] = {}
    monkeypatch.setattr(clients, "AIOKafkaProducer", lambda **chosen: options.update(chosen))
    clients.make_producer(KafkaSettings(), "service")
    assert (options["acks"], options["enable_idempotence"]) == ("all", True)
    files = (file for root in SOURCE_ROOTS for file in root.rglob("*.py"))
    assert [file.name for file in files if "AIOKafkaProducer(" in file.read_text()] == ["clients.py"]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("error", [KafkaTimeoutError(), NotEnoughReplicasError(), KafkaConnectionError()])
async def test_a_passing_fault_is_tried_again_by_the_same_process(
    error: KafkaError, at_once: bool, tmp_path: Path
) -> None:

    async with publisher(error, at_once, tmp_path) as log:
        with pytest.raises(Retry):
            await log.publish_raw("tasks.v1", "k", b"v")
        watching = asyncio.ensure_future(log.watch())
        await asyncio.sleep(0)
        assert not watching.done()
        watching.cancel()


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("error", [OutOfOrderSequenceNumber(), ProducerFenced(), KafkaError("Unexpected error")])
async def test_a_producer_that_sends_nothing_more_ends_the_process(
    error: KafkaError, at_once: bool, tmp_path: Path
) -> None:
    async with publisher(error, at_once, tmp_path) as log:
        with pytest.raises(Retry):
            await log.publish_raw("tasks.v1", "k", b"v")
        with pytest.raises(type(error)):
            await log.watch()


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("error", [MessageSizeTooLargeError(), RecordTooLargeError()])
async def test_a_record_that_is_too_large_is_not_tried_again(error: KafkaError, at_once: bool, tmp_path: Path) -> None:
    async with publisher(error, at_once, tmp_path) as log:
        with pytest.raises(type(error)):
            await log.publish_raw("tasks.v1", "k", b"v")
