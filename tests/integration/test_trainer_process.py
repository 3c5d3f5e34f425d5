"""The trainer as a process on a real broker: killed or stopped, another goes on where the checkpoint says."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from leyden.events import (
    CheckpointSaved,
    Event,
    GroupCredited,
    SequenceCredited,
    TrainingStepCompleted,
    Transition,
    pack_floats,
    pack_ints,
)
from leyden.events.codec import CHECKPOINTS, TRAINING_METRICS, TRANSITIONS, decode
from leyden.kafka import Outgoing
from leyden.kafka.admin import ensure_topics
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.reading import read_topics
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.subscriber import FATAL_EXIT

pytestmark = [pytest.mark.integration, pytest.mark.timeout(280)]
TIME = datetime(2030, 1, 1, tzinfo=UTC)


def group(name: str) -> list[Event]:
    """Two samples of one prompt, one better than the other."""
    random = np.random.default_rng(len(name) + ord(name[-1]))
    prompt = random.integers(3, 97, 8).tolist()
    sequences: list[Event] = []
    for index, advantage in enumerate((1.0, -1.0)):
        tokens = prompt + random.integers(3, 97, 5).tolist()
        transition = Transition(
            call_id=f"{name}-{index}", start=8, end=13, policy_version=0, temperature=1.0, reward=0.0,
            return_=advantage, advantage=advantage, origin=f"model-calls.v1/0/{index}",
        )  # fmt: skip
        sequences.append(
            SequenceCredited(
                event_id=f"{name}-{index}",
                event_time=TIME,
                producer="test",
                rollout_id=f"{name}-{index}",
                attempt=0,
                policy="policy",
                group_id=name,
                group_sequences=2,
                sequence_index=index,
                token_ids=pack_ints(tokens),
                behaviour_logprobs=pack_floats([-4.5] * 13),
                transitions=[transition],
                rollout_reward=advantage,
            )
        )
    closing = GroupCredited(
        event_id=f"{name}-end", event_time=TIME, producer="test", policy="policy", group_id=name, sequences=2, members=2
    )
    return [*sequences, closing]


class Trainer:
    """The service's process, and the log around it."""

    def __init__(self, kafka: KafkaSettings, prefix: str, model: Path, folder: Path) -> None:
        self.kafka, self.prefix, self.folder = kafka, prefix, folder
        (folder / "run.yaml").write_text("trainer: {groups_per_step: 2, lora: {rank: 4, alpha: 8}}\n")
        self.env = os.environ | {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_SESSION_TIMEOUT_MS": "6000",
            "LEYDEN_TOPIC_PREFIX": prefix,
            "LEYDEN_DATA_DIR": str(folder / "data"),
            "LEYDEN_RUN_FILE": str(folder / "run.yaml"),
            "LEYDEN_TRAINER_MODEL": str(model),
            "LEYDEN_TRAINER_CHECKPOINT_DIR": str(folder / "checkpoints"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        self.claims = ClaimStore(f"file://{folder}/claims")
        self.publisher = KafkaPublisher(kafka, prefix, self.claims)
        self.process: asyncio.subprocess.Process | None = None
        self.stopped: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with (self.folder / "trainer.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "leyden.trainer", env=self.env, stderr=log
            )

    async def replace(self) -> None:
        """Stop the process without ending it, and start another one."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.stopped = self.process
        await self.start()

    async def stop(self, how: signal.Signals) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
        return await self.process.wait()

    async def publish(self, *names: str) -> None:
        for name in names:
            await self.publisher.publish_all([Outgoing(TRANSITIONS, name, event) for event in group(name)])

    async def told(self, topic: str) -> list[Event]:
        read = read_topics(self.kafka, self.claims, self.prefix + topic)
        return [decode(topic, record.value) async for record in read]

    async def saved(self, version: int) -> list[CheckpointSaved]:
        """All checkpoints told, once `version` is among them."""
        async with asyncio.timeout(100):
            while True:
                found = [event for event in await self.told(CHECKPOINTS) if isinstance(event, CheckpointSaved)]
                if any(event.version == version for event in found):
                    return found
                assert self.process is not None and self.process.returncode is None, "the trainer has ended"
                await asyncio.sleep(0.5)


@pytest.fixture
async def trainer(
    kafka_servers: str, redis_server_url: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Trainer]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(str(tmp_path / "model"))
    monkeypatch.setenv("REDIS_URL", redis_server_url)
    kafka = KafkaSettings(bootstrap_servers=kafka_servers)
    await ensure_topics(kafka, topic_prefix)
    trainer = Trainer(kafka, topic_prefix, tmp_path / "model", tmp_path)
    await trainer.publisher.start()
    await trainer.start()
    yield trainer
    await trainer.stop(signal.SIGKILL)
    if trainer.stopped is not None and trainer.stopped.returncode is None:
        trainer.stopped.kill()
        await trainer.stopped.wait()
    await trainer.publisher.stop()


async def test_each_group_is_trained_once_when_a_stopped_trainer_continues_beside_its_successor(
    trainer: Trainer,
) -> None:
    await trainer.publish("a", "b", "c")
    await trainer.saved(1)
    await trainer.replace()
    await trainer.publish("d")
    await trainer.saved(2)
    assert trainer.stopped is not None
    trainer.stopped.send_signal(signal.SIGCONT)
    await trainer.publish("e")
    assert await asyncio.wait_for(trainer.stopped.wait(), 60) == FATAL_EXIT
    assert "FencedError" in (trainer.folder / "trainer.log").read_text()
    await trainer.stop(signal.SIGKILL)
    await trainer.publish("f")
    await trainer.start()
    saved = await trainer.saved(3)
    assert await trainer.stop(signal.SIGTERM) == 0
    steps = [event for event in await trainer.told(TRAINING_METRICS) if isinstance(event, TrainingStepCompleted)]
    by_id = {event.event_id: event for event in steps}
    assert [event.step for event in by_id.values()] == [1, 2, 3]
    assert all(by_id[event.event_id] == event for event in steps)
    trained = [name for event in by_id.values() for name in event.manifest.group_ids]
    assert sorted(trained) == ["a", "b", "c", "d", "e", "f"]
    last = saved[-1]
    assert (last.version, last.parent_version) == (3, 2)
    assert last.merged_weights is not None
    assert (Path(last.merged_weights) / "model.safetensors").is_file()
    assert trainer.prefix.rstrip(".") in last.checkpoint
