"""Real Apache Kafka and a real Redis-compatible server, as the launcher starts them: what was acknowledged survives."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError
from redis.asyncio import Redis

from leyden.stack.errors import FetchError
from leyden.stack.kafka import KafkaBroker, ensure_jars
from leyden.stack.redis import RedisServer

pytestmark = pytest.mark.integration


async def write(servers: str, topic: str, value: bytes) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(
        bootstrap_servers=servers, acks="all", enable_idempotence=True, max_request_size=9 * 2**20
    ) as producer:
        await producer.send_and_wait(topic, value)


async def read_first(servers: str, topic: str) -> bytes:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
    try:
        await consumer.start()
        record = await asyncio.wait_for(consumer.getone(), 60)
    finally:
        await consumer.stop()
    assert record.value is not None
    return bytes(record.value)


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


async def test_an_acknowledged_record_survives_kill_9_of_the_broker(tmp_path: Path) -> None:
    big = os.urandom(7 * 2**20)
    with KafkaBroker(tmp_path / "kafka") as broker:
        await write(broker.bootstrap_servers, "kept", big)
        killed = broker.pid
        kill(killed)
        await asyncio.to_thread(broker.wait_ready)
        assert await read_first(broker.bootstrap_servers, "kept") == big
        assert broker.pid != killed
        assert (tmp_path / "kafka" / "kafka.log").stat().st_size > 0
    with KafkaBroker(tmp_path / "kafka") as again:
        assert again.port != broker.port
        assert await read_first(again.bootstrap_servers, "kept") == big


async def test_a_topic_nobody_created_is_not_made_by_writing(kafka_servers: str, topic_prefix: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka_servers, request_timeout_ms=1000) as producer:
        with pytest.raises((UnknownTopicOrPartitionError, TimeoutError)):
            await asyncio.wait_for(producer.send_and_wait(f"{topic_prefix}nowhere", b"x"), 3)


async def test_an_acknowledged_write_survives_kill_9_of_redis(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        async with Redis.from_url(server.url) as redis:
            await redis.hset("reward:rollouts", "one", "1")
        killed = server.pid
        kill(killed)
    with RedisServer(tmp_path / "redis", server.port) as again:
        async with Redis.from_url(again.url) as redis:
            assert await redis.hget("reward:rollouts", "one") == b"1"
            assert (await redis.config_get("appendfsync"))["appendfsync"] == "always"


def test_jars_in_the_cache_need_neither_network_nor_resolver() -> None:
    ensure_jars()
    code = (
        "import sys; from leyden.stack.kafka import ensure_jars; n = len(ensure_jars()); print(n, 'jgo' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    count, imported = done.stdout.split()
    assert int(count) > 40 and imported == "False"


def test_a_broken_jar_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "jars" / "envs" / "org" / "apache" / "kafka" / "x"
    (lock / "jars").mkdir(parents=True)
    (lock / "jars" / "a-1.jar").write_bytes(b"half a jar")
    (lock / "jgo.lock.toml").write_text(
        '[[dependencies]]\ngroupId = "g"\nartifactId = "a"\nversion = "1"\nsha256 = "00"\n'
    )
    monkeypatch.setattr("leyden.stack.kafka.JARS", ("g:a:1",))
    monkeypatch.setattr("leyden.stack.kafka._fetch", lambda folder: None)
    with pytest.raises(FetchError, match="incomplete or damaged"):
        ensure_jars(tmp_path)
