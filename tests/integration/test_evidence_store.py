"""The laws of the evidence store, on the fake and on a real Redis alike."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from leyden.kafka import Retry
from leyden.state import EvidenceStore, MemoryEvidenceStore, RedisEvidenceStore


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.integration)])
async def store(request: pytest.FixtureRequest, topic_prefix: str) -> AsyncIterator[EvidenceStore]:
    if request.param == "memory":
        yield MemoryEvidenceStore()
        return
    redis = Redis.from_url(request.getfixturevalue("redis_server_url"))
    yield RedisEvidenceStore(redis, f"{topic_prefix}store")
    await redis.aclose()


async def test_an_item_added_twice_is_there_once_and_the_first_bytes_stay(store: EvidenceStore) -> None:
    await store.add([("r1", "a", b"1"), ("r1", "a", b"2"), ("r1", "b", b"3")])
    await store.add([("r1", "a", b"4")])
    assert await store.load(["r1", "r1", "r2"]) == {"r1": {"a": b"1", "b": b"3"}}


async def test_subjects_are_apart(store: EvidenceStore) -> None:
    await store.add([("r1", "a", b"1"), ("r2", "a", b"2")])
    await store.close(["r1"])
    assert await store.load(["r1", "r2"]) == {"r2": {"a": b"2"}}


async def test_a_late_duplicate_does_not_open_a_closed_subject_again(store: EvidenceStore) -> None:
    await store.add([("r1", "a", b"1")])
    await store.close(["r1"])
    await store.close(["r1"])
    await store.add([("r1", "a", b"1")])
    assert await store.load(["r1"]) == {}


async def test_names_and_single_items_can_be_had_without_the_rest(store: EvidenceStore) -> None:
    await store.add([("r1", "a", b"1"), ("r1", "b", b"2"), ("r2", "a", b"3")])
    assert {subject: sorted(ids) for subject, ids in (await store.names(["r1", "r3"])).items()} == {"r1": ["a", "b"]}
    assert await store.pick({"r1": ["b", "z"], "r2": ["a"]}) == {"r1": {"b": b"2"}, "r2": {"a": b"3"}}


HOSTILE = ["", "\n", "a\nb", "\x00", " ", "5 5", ":", "*", "{r}", "a" * 5000, "\u00e9\U0001f600", "1e308"]
"""Texts that a schema allows as an id, and that a store could take for its own separators, patterns or numbers."""


async def test_subjects_and_ids_may_be_any_text(store: EvidenceStore) -> None:
    held = {
        subject: {item: f"{subject}/{item}".encode() for item in [*HOSTILE[place:], *HOSTILE[:place]]}
        for place, subject in enumerate(HOSTILE)
    }
    await store.add((subject, item, value) for subject, items in held.items() for item, value in items.items())
    assert await store.load(HOSTILE) == held
    names = await store.names(HOSTILE)
    assert {subject: sorted(ids) for subject, ids in names.items()} == dict.fromkeys(HOSTILE, sorted(HOSTILE))
    assert await store.pick(dict.fromkeys(HOSTILE, HOSTILE)) == held
    await store.close(HOSTILE[:6])
    assert set(await store.load(HOSTILE)) == set(HOSTILE[6:])


async def test_an_item_without_id_or_bytes_is_still_an_item(store: EvidenceStore) -> None:
    await store.add([("r1", "", b""), ("r2", "", b"2")])
    assert await store.load(["r1", "r2"]) == {"r1": {"": b""}, "r2": {"": b"2"}}
    assert await store.names(["r1", "r2"]) == {"r1": [""], "r2": [""]}


async def test_a_subject_that_is_kept_for_a_time_still_takes_items(store: EvidenceStore) -> None:
    await store.add([("r1", "a", b"1")])
    await store.keep(["r1"], 60)
    assert await store.add([("r1", "b", b"2")]) == set()
    assert await store.load(["r1"]) == {"r1": {"a": b"1", "b": b"2"}}


@pytest.mark.integration
async def test_a_subject_is_closed_once_the_time_it_was_kept_for_is_over(
    redis_server_url: str, topic_prefix: str
) -> None:
    redis = Redis.from_url(redis_server_url)
    store = RedisEvidenceStore(redis, f"{topic_prefix}store")
    await store.add([("r1", "a", b"1")])
    await store.keep(["r1"], 1)
    await store.add([("r1", "b", b"2")])
    assert await redis.ttl(f"{topic_prefix}store:open:r1") == 1, "what comes does not prolong it"
    await asyncio.sleep(1.2)
    assert await store.add([("r1", "c", b"3")]) == {"r1"}
    assert await store.load(["r1"]) == {}
    await redis.aclose()


async def test_nothing_asked_is_nothing_answered(store: EvidenceStore) -> None:
    await store.add([])
    await store.close([])
    assert (await store.load([]), await store.names([]), await store.pick({})) == ({}, {}, {})


async def test_a_redis_that_is_away_is_a_passing_fault() -> None:
    store = RedisEvidenceStore(Redis.from_url("redis://127.0.0.1:1/0"), "gone")
    with pytest.raises(Retry):
        await store.load(["r1"])
