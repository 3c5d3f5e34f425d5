"""What the gateway reads back of the log, and what it leaves out."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka import ConsumerRecord
from prometheus_client import REGISTRY

from leyden.events import QueuePaused
from leyden.events.codec import TASKS, encode
from leyden.gateway.adapters.history import KafkaHistory
from leyden.kafka import Retry
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import CLAIM_HEADER
from leyden.kafka.settings import KafkaSettings

PAUSED = QueuePaused(event_id="e", event_time=datetime(2026, 1, 1, tzinfo=UTC), producer="gateway")


def record(value: bytes, claim: str | None = None) -> ConsumerRecord:
    headers = () if claim is None else ((CLAIM_HEADER, claim.encode()),)
    return ConsumerRecord(TASKS, 2, 7, 0, 0, b"key", value, None, 3, len(value), headers)


def left_out() -> float:
    return REGISTRY.get_sample_value("leyden_gateway_unreadable_records_total", {"topic": TASKS}) or 0.0


@pytest.fixture
def claims(tmp_path: Path) -> ClaimStore:
    return ClaimStore(f"file://{tmp_path}/claims")


@pytest.fixture
def history(claims: ClaimStore) -> KafkaHistory:
    return KafkaHistory(KafkaSettings(), "", claims)


async def test_events_are_read_from_the_record_or_from_where_it_says(history: KafkaHistory, claims: ClaimStore) -> None:
    assert await history.event_of(TASKS, record(encode(PAUSED))) == PAUSED
    assert await history.event_of(TASKS, record(b"", claims.put(encode(PAUSED)))) == PAUSED
    assert await history.event_of(TASKS, record(b"{}")) is None


async def test_a_claim_that_is_no_good_is_left_out_counted_and_logged(
    history: KafkaHistory, caplog: pytest.LogCaptureFixture
) -> None:
    before = left_out()
    assert await history.event_of(TASKS, record(b"", "file:///another/store/x")) is None
    assert left_out() == before + 1
    assert "tasks.v1/2/7 is left out" in caplog.text


async def test_a_claim_store_that_is_away_is_a_passing_fault(history: KafkaHistory, tmp_path: Path) -> None:
    before = left_out()
    with pytest.raises(Retry):
        await history.event_of(TASKS, record(b"", f"file://{tmp_path}/claims/{'0' * 64}"))
    assert left_out() == before
