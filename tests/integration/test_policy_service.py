"""The policy agent as a process, on a real broker, beside a real engine: promoted versions go live and stay live."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine_support import Direct, EngineProcess, Said, save_tiny_model
from leyden.events import PolicyPromoted, PolicyServed
from leyden.events.codec import MODELS, decode
from leyden.kafka.admin import ensure_topics
from leyden.kafka.claims import ClaimStore
from leyden.kafka.delivered import Outgoing
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.reading import read_topics
from leyden.kafka.settings import KafkaSettings
from roots import python_path

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default"), pytest.mark.timeout(240)]


class Loop:
    """An engine and its agent, and a hand on the topic between registry and agent."""

    def __init__(self, kafka: KafkaSettings, prefix: str, folder: Path) -> None:
        self.kafka, self.prefix, self.folder = kafka, prefix, folder
        self.weights = [save_tiny_model(folder / f"weights-{seed}", seed) for seed in range(3)]
        self.claims = ClaimStore(f"file://{folder}/claims")
        self.publisher = KafkaPublisher(kafka, prefix, self.claims)
        self.engine = EngineProcess.start("transformers", self.weights[0], folder / "engine.log")
        self.agent = self.start_agent()

    def start_agent(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PYTHONPATH": python_path(),
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "LEYDEN_TOPIC_PREFIX": self.prefix,
            "LEYDEN_DATA_DIR": str(self.folder),
            "LEYDEN_POLICY_NAME": "tiny",
            "LEYDEN_POLICY_ENGINE_URL": self.engine.url,
            "LEYDEN_POLICY_REPLICA": "replica-1",
            "LEYDEN_POLICY_PROBE_S": "0.5",
        }
        with (self.folder / "agent.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "leyden.policy"], env=environment, stdout=log, stderr=log)

    async def promote(self, *versions: int) -> None:
        events = [
            PolicyPromoted(
                event_id=f"promotion-{version}",
                event_time=datetime(2026, 1, 1, tzinfo=UTC),
                producer="registry",
                policy="tiny",
                version=version,
                merged_weights=self.weights[version].as_uri(),
            )
            for version in versions
        ]
        await self.publisher.publish_all([Outgoing(MODELS, "tiny", event) for event in events])

    async def served(self) -> list[int]:
        read = read_topics(self.kafka, self.claims, self.prefix + MODELS)
        events = [decode(MODELS, record.value) async for record in read]
        return [event.version for event in events if isinstance(event, PolicyServed)]

    async def until(self, fact: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not await fact():
                    await asyncio.sleep(0.3)
        except TimeoutError:
            pytest.fail((self.folder / "agent.log").read_text()[-3000:])

    async def until_live(self, version: int) -> None:
        async def live() -> bool:
            return (await asyncio.to_thread(self.engine.version))["version"] == f"tiny@{version}"

        await self.until(live)

    async def until_last_served(self, version: int) -> None:
        async def served() -> bool:
            return (await self.served())[-1:] == [version]

        await self.until(served)

    def restart_engine(self) -> None:
        """On the same port, at version 0 again."""
        port = int(self.engine.url.rpartition(":")[2])
        self.engine.stop()
        self.engine = EngineProcess.start("transformers", self.weights[0], self.folder / "engine-2.log", port=port)

    def stop(self) -> None:
        self.agent.kill()
        self.agent.wait(10)
        self.engine.stop()


@pytest.fixture
async def loop(kafka_servers: str, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Loop]:
    kafka = KafkaSettings(bootstrap_servers=kafka_servers)
    await ensure_topics(kafka, topic_prefix)
    loop = await asyncio.to_thread(Loop, kafka, topic_prefix, tmp_path)
    try:
        await loop.publisher.start()
        yield loop
    finally:
        await loop.publisher.stop()
        await asyncio.to_thread(loop.stop)


async def test_promotions_go_live_and_survive_the_death_of_engine_and_agent(loop: Loop) -> None:
    await loop.until_last_served(0)
    await loop.promote(1)
    await loop.until_last_served(1)
    said = Said.of(await asyncio.to_thread(loop.engine.chat, "who answers?"))
    assert said.version == "tiny@1"
    assert said.error_against(Direct(loop.weights[1])) < 2e-3

    await asyncio.to_thread(loop.restart_engine)
    await loop.until_live(1)

    loop.agent.kill()
    loop.agent.wait(10)
    await loop.promote(1, 2)
    loop.agent = loop.start_agent()
    await loop.until_live(2)
    await loop.until_last_served(2)

    loop.agent.terminate()
    assert await asyncio.to_thread(loop.agent.wait, 20) == 0
