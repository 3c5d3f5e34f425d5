"""What cannot be handled is kept exactly as it came, however little of it the handler read."""

import asyncio
from collections.abc import Sequence, Set
from pathlib import Path

import pytest
from aiokafka import ConsumerRecord

from consumer_support import record
from fakes import FakePublisher
from leyden.events import Event
from leyden.events.codec import batch_decoder
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import CLAIM_HEADER, ERROR_HEADER, ORIGIN_HEADER, BatchHandler, Delivered, Poison, Retry
from leyden.kafka.liveness import Heartbeat
from leyden.kafka.loop import BatchLoop, DivertedAmong, LoopSettings, TooManyDeadLettersError

VALUE = b'{"type":"t", "event_id":"e","event_time":"2026-01-01T00:00:00Z","producer":"p","text":"not read", "body":{}}'


class OnlyIdentity(Event):
    """What all events have; the rest of a record is passed over."""


async def refuse(batch: Sequence[Delivered[Event]]) -> None:
    """A handler that can do nothing with any of it."""
    raise Poison("never", *batch)


class Taken:
    """A handler that keeps what it gets."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    async def __call__(self, batch: Sequence[Delivered[Event]]) -> None:
        self.offsets += [one.offset for one in batch]


def loop_of(
    handler: BatchHandler,
    claims: ClaimStore,
    kept: FakePublisher,
    heartbeat: Heartbeat | None = None,
    *,
    diverted_among: DivertedAmong | None = None,
    limit: int = 100,
) -> BatchLoop:
    def decode(_: str, values: Sequence[bytes]) -> list[Event]:
        return batch_decoder((OnlyIdentity,))(values)

    retry = LoopSettings(0, 0, limit)
    return BatchLoop(
        topics=("model-calls.v1",),
        handler=handler,
        decode=decode,
        publisher=kept,
        claims=claims,
        retry=retry,
        heartbeat=heartbeat,
        diverted_among=diverted_among,
    )


def call_record(offset: int, value: bytes = VALUE, claim: bytes | None = None) -> ConsumerRecord:
    return record("model-calls.v1", 0, offset, value, () if claim is None else [(CLAIM_HEADER, claim)])


def file_of(claim: str) -> Path:
    return Path(claim.removeprefix("file://"))


async def test_a_reader_without_a_group_diverts_a_record_once_however_often_it_starts(tmp_path: Path) -> None:
    claims, kept, taken = ClaimStore(f"file://{tmp_path}/claims"), FakePublisher(), Taken()
    unavailable = [Retry("Kafka is away")]

    async def diverted_among(topic: str, origins: Set[str]) -> Set[str]:
        if unavailable:
            raise unavailable.pop()
        assert topic == "model-calls.v1"
        return origins & {headers[ORIGIN_HEADER] for headers in kept.raw_headers}

    bad = [call_record(offset, b"{broken") for offset in range(3)]
    for start in range(4):
        await loop_of(taken, claims, kept, diverted_among=diverted_among, limit=3).handle([*bad, call_record(3)])
        await loop_of(taken, claims, kept, diverted_among=diverted_among, limit=3).handle([*bad, *bad[:start]])
        assert [headers[ORIGIN_HEADER] for headers in kept.raw_headers] == [one.origin for one in map(delivered, bad)]
    assert taken.offsets == [3] * 4


async def test_a_reader_without_a_group_asks_once_about_all_bad_records_of_a_batch(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    async def diverted_among(topic: str, origins: Set[str]) -> Set[str]:
        asked.append((topic, len(origins)))
        return set()

    loop = loop_of(Taken(), ClaimStore(f"file://{tmp_path}"), FakePublisher(), diverted_among=diverted_among)
    with pytest.raises(TooManyDeadLettersError):
        await loop.handle([call_record(offset, b"{broken") for offset in range(1000)])
    assert asked == [("model-calls.v1", 1000)]


def delivered(one: ConsumerRecord) -> Delivered[bytes]:
    return Delivered(b"", one.topic, "", one.partition, one.offset, f"{one.topic}/{one.partition}/{one.offset}")


async def test_a_record_whose_claim_is_no_good_is_a_dead_letter_and_those_around_it_are_handled(tmp_path: Path) -> None:
    claims, kept, taken = ClaimStore(f"file://{tmp_path}/claims"), FakePublisher(), Taken()
    good, changed = claims.put(VALUE), claims.put(b"other")
    file_of(changed).write_bytes(b"bad")
    gone = claims.put(b"gone")
    file_of(gone).unlink()
    bad = [f"file://{tmp_path}/elsewhere/x".encode(), changed.encode(), gone.encode(), b"\xff"]
    records = [
        call_record(0),
        *(call_record(1 + at, b"", claim) for at, claim in enumerate(bad)),
        call_record(5, b"", good.encode()),
    ]
    await loop_of(taken, claims, kept).handle(records)
    assert taken.offsets == [0, 5]
    assert kept.raw == [("model-calls.v1.dlq", "key", b"")] * 4
    reasons = [headers[ERROR_HEADER] for headers in kept.raw_headers]
    assert "is not in this store" in reasons[0]
    assert "does not match its hash" in reasons[1]
    assert "is no longer in the store" in reasons[2]
    assert [headers[CLAIM_HEADER] for headers in kept.raw_headers][:2] == [bad[0].decode(), changed]


async def test_a_claim_store_that_is_away_is_waited_for(tmp_path: Path) -> None:
    claims, kept, taken = ClaimStore(f"file://{tmp_path}/claims"), FakePublisher(), Taken()
    claim = claims.put(VALUE)
    folder, away = file_of(claim).parent, tmp_path / "away"
    folder.rename(away)
    heartbeat = Heartbeat()
    handling = asyncio.ensure_future(
        loop_of(taken, claims, kept, heartbeat).handle([call_record(0, b"", claim.encode())])
    )
    async with asyncio.timeout(20):
        while "cannot read claim" not in heartbeat.waiting_for:
            await asyncio.sleep(0)
    away.rename(folder)
    await handling
    assert (taken.offsets, kept.raw) == ([0], [])


async def test_nothing_but_claims_that_are_no_good_ends_the_process(tmp_path: Path) -> None:
    loop = loop_of(Taken(), ClaimStore(f"file://{tmp_path}/claims"), FakePublisher())
    with pytest.raises(TooManyDeadLettersError, match="101 dead letters in a row"):
        await loop.handle([call_record(at, b"", b"file:///another/store") for at in range(101)])


async def test_a_dead_letter_has_the_bytes_of_its_record_also_where_the_handler_reads_less(tmp_path: Path) -> None:
    kept = FakePublisher()
    values = [VALUE, b'{"type":"no event"}']
    records = [call_record(offset, value) for offset, value in enumerate(values)]
    await loop_of(refuse, ClaimStore(f"file://{tmp_path}"), kept).handle(records)
    assert sorted(kept.raw) == sorted(("model-calls.v1.dlq", "key", value) for value in values)
