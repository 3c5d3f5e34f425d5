"""Reward and credit on a real broker: a group closed by its deadline, a late member, a late reward; and the replay."""

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from credit_support import T0, call, finished, rollout
from fakes import TOPIC_OF
from leyden.events import Event, GroupClosing, GroupCredited, RolloutEnded, SequenceCredited
from leyden.events.codec import TRANSITIONS, decode
from leyden.events.spans import Evaluation, SpanKind, SpanRecorded
from leyden.ids import AttemptRef, derive
from leyden.kafka import Outgoing
from leyden.kafka.admin import ensure_topics, topics_under
from leyden.kafka.claims import ClaimStore
from leyden.kafka.publisher import KafkaPublisher
from leyden.kafka.reading import read_topics
from leyden.kafka.settings import KafkaSettings
from leyden.replay.names import ReplayName
from leyden.replay.past import REPORT
from leyden.replay.run import ReplayPlan, run_replay
from leyden.stack.config import StackConfig
from leyden.stack.errors import StackError
from leyden.stack.state import DataFolder
from leyden.state import make_redis

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
RUN = {
    "reward": {"late_horizon_s": 3600},
    "credit": {"group": {"deadline_s": 6}},
}


def ended_rollout(index: int, value: float, size: int, group_id: str) -> list[Event]:
    """What the gateway records of a rollout: its calls and its end, with a reward."""
    about: dict[str, Any] = {"rollout_id": rollout(index)}
    calls = [call(f"c{index}-{n}", [1, 2, *([3, 4] * n)], [3, 4], at=n, **about) for n in range(2)]
    events = finished(calls, [], group_size=size, group_id=group_id, **about)
    [ended] = [event for event in events if isinstance(event, RolloutEnded)]
    return [*calls, ended.model_copy(update={"reward": value})]


def thumb(index: int, value: float, after_s: float) -> SpanRecorded:
    """An evaluation that comes some time after the rollout's end."""
    at = T0 + timedelta(seconds=60 + after_s)
    nano = int(at.timestamp()) * 10**9
    return SpanRecorded(
        event_id=derive("span", index, after_s),
        event_time=at,
        producer="ingest",
        trace_id=AttemptRef(rollout(index), 0).trace_id,
        span_id=f"{index:016x}",
        rollout_id=rollout(index),
        attempt=0,
        name="thumb",
        kind=SpanKind.EVALUATION,
        dialect="gen_ai",
        start_unix_nano=nano,
        end_unix_nano=nano,
        evaluation=Evaluation(name="thumb", value=value),
    )


class Log:
    """The topics under one prefix."""

    def __init__(self, servers: str, prefix: str, folder: Path) -> None:
        self.settings = KafkaSettings(bootstrap_servers=servers)
        self.prefix = prefix
        self._claims = ClaimStore(f"file://{folder}/claims")
        self._publisher = KafkaPublisher(self.settings, prefix, self._claims)

    async def __aenter__(self) -> "Log":
        await ensure_topics(self.settings, self.prefix)
        await self._publisher.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._publisher.stop()

    async def write(self, events: list[Event]) -> None:
        await self._publisher.publish_all([Outgoing(TOPIC_OF[type(e)], e.rollout_id, e) for e in events])  # type: ignore[attr-defined]

    async def write_group(self, event: GroupCredited) -> None:
        await self._publisher.publish_all([Outgoing(TRANSITIONS, f"{event.policy}/{event.group_id}", event)])

    async def transitions(self) -> list[SequenceCredited | GroupCredited]:
        read = read_topics(self.settings, self._claims, self.prefix + TRANSITIONS)
        found = [decode(TRANSITIONS, record.value) async for record in read]
        return [event for event in found if isinstance(event, SequenceCredited | GroupCredited)]

    async def until(self, enough: Callable[[list[GroupCredited]], bool]) -> list[GroupCredited]:
        """The groups, once there are `enough`."""
        deadline = time.monotonic() + 60
        while not enough(groups := [e for e in await self.transitions() if isinstance(e, GroupCredited)]):
            assert time.monotonic() < deadline, groups
            await asyncio.sleep(0.5)
        return groups


@pytest.fixture
def services(
    kafka_servers: str, redis_server_url: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Reward and credit, and the data folder of the stack that they are part of."""
    run_file = tmp_path / "run.yaml"
    run_file.write_text(yaml.safe_dump(RUN))
    stack = StackConfig(data_dir=tmp_path, run_file=run_file, topic_prefix=topic_prefix)
    DataFolder(tmp_path).config.write_text(stack.model_dump_json())
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_servers)
    monkeypatch.setenv("REDIS_URL", redis_server_url)
    root = Path(__file__).resolve().parents[2]
    env = os.environ | {
        "LEYDEN_TOPIC_PREFIX": topic_prefix,
        "LEYDEN_DATA_DIR": str(tmp_path / "services"),
        "LEYDEN_RUN_FILE": str(run_file),
        "LEYDEN_CREDIT_BACKLOG_S": "1",
        "PYTHONPATH": f"{root / 'services'}:{root / 'shared'}",
    }
    with ExitStack() as running:
        for name in ("reward", "credit"):
            child = subprocess.Popen([sys.executable, "-m", f"leyden.{name}"], env=env)
            running.callback(child.wait)
            running.callback(child.kill)
        yield tmp_path


async def test_a_replay_gives_what_a_deadline_a_late_member_and_a_late_reward_gave(
    kafka_servers: str, topic_prefix: str, services: Path
) -> None:
    async with Log(kafka_servers, topic_prefix, services) as log:
        whole = [event for index in (0, 1) for event in ended_rollout(index, float(index), 2, "whole")]
        torn = [event for index in (2, 3) for event in ended_rollout(index, float(index), 3, "torn")]
        await log.write([*whole, *torn])
        groups = await log.until(lambda found: len(found) >= 2)
        assert {(g.group_id, g.closed_by, g.members) for g in groups} == {
            ("whole", GroupClosing.COMPLETE, 2),
            ("torn", GroupClosing.DEADLINE, 2),
        }
        await log.write([*ended_rollout(4, 9.0, 3, "torn"), thumb(0, 5.0, after_s=60), thumb(1, 7.0, after_s=7200)])
        groups = await log.until(lambda found: len(found) >= 3)
        assert [(g.group_id, g.revision, g.reward_mean) for g in groups if g.revision] == [("whole", 1, 3.0)]
        assert rollout(4) not in {event.rollout_id for event in await log.transitions() if hasattr(event, "rollout_id")}

        code, said = await replayed(services)
        assert code == 0, said
        assert any(line.startswith("identical: 6 of 6 events") for line in said), said

        [group, *_] = groups
        await log.write_group(group.model_copy(update={"event_id": "0" * 32, "group_id": "not in the evidence"}))
        code, said = await replayed(services)
        assert code == 1, said
        assert "different: 6 events the same, 0 changed, 1 only recorded, 0 only replayed" in said, said

        (services / "broken_rewards.py").write_text("def score(rollout):\n    return rollout.task.metadata['answer']\n")
        broken = services / "broken.yaml"
        functions = {"functions": [{"entry": "broken_rewards:score", "retries": 0}]}
        broken.write_text(yaml.safe_dump(RUN | {"reward": RUN["reward"] | functions}))
        code, said = await replayed(services, broken)
        assert code == 0, said
        assert any("reward rule score failed on 5 rollouts: exception: KeyError: 'answer'" in line for line in said), (
            said
        )


@pytest.fixture
def log_alone(
    kafka_servers: str, redis_server_url: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The data folder of a stack of which no process runs."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_servers)
    monkeypatch.setenv("REDIS_URL", redis_server_url)
    stack = StackConfig(data_dir=tmp_path, topic_prefix=topic_prefix)
    DataFolder(tmp_path).config.write_text(stack.model_dump_json())
    return tmp_path


async def test_a_failed_replay_leaves_its_name_free(kafka_servers: str, topic_prefix: str, log_alone: Path) -> None:
    kafka, name = KafkaSettings(bootstrap_servers=kafka_servers), f"again-{secrets.token_hex(4)}"
    folder = log_alone / "replays" / name
    wrong = log_alone / "wrong.yaml"
    wrong.write_text("reward:\n  functions: [{entry: 'no_such_module:score'}]\n")
    with pytest.raises(StackError, match=r"wrong\.yaml:2: reward\.functions\[0\]"):
        await replayed(log_alone, wrong, name=name)
    assert await topics_under(kafka, f"{name}.") == []

    async with Log(kafka_servers, topic_prefix, log_alone):
        with pytest.raises(StackError, match="No records between"):
            await replayed(log_alone, name=name)
        assert await topics_under(kafka, f"{name}.") == []

    async with Log(kafka_servers, topic_prefix, log_alone) as log:
        await log.write(ended_rollout(0, 1.0, 1, "alone"))
        with pytest.raises(asyncio.CancelledError):
            await replayed(log_alone, name=name, heard=_stop_after_copying)
        assert await topics_under(kafka, f"{name}.") == []
        assert {path.name for path in folder.iterdir()} <= {"lock", "logs"}


async def test_a_killed_replay_is_deleted_and_topics_of_others_never(
    kafka_servers: str, redis_server_url: str, topic_prefix: str, log_alone: Path
) -> None:
    kafka, name = KafkaSettings(bootstrap_servers=kafka_servers), f"again-{secrets.token_hex(4)}"
    prefix, told = f"{name}.", list[str]()
    taken = ReplayName(name, log_alone / "replays" / name, kafka, redis_server_url)
    redis = make_redis(redis_server_url)
    try:
        async with taken.taken(topic_prefix, told.append):
            await redis.set(f"{prefix}reward:read", 7)
            await redis.set(f"{name}-other.reward:read", 8)
            with pytest.raises(StackError, match="is running"):
                async with taken.taken(topic_prefix, told.append):
                    raise AssertionError("not reached")
        created = await topics_under(kafka, prefix)
        async with taken.taken(topic_prefix, told.append):  # the first was killed: it has no report
            assert await redis.get(f"{prefix}reward:read") is None
            assert await redis.get(f"{name}-other.reward:read") == b"8"
        assert await topics_under(kafka, prefix) == created != []

        (taken.folder / REPORT).write_text("{}")
        elsewhere = ReplayName(name, log_alone / "elsewhere", kafka, redis_server_url)
        live = ReplayName(topic_prefix.rstrip("."), taken.folder, kafka, redis_server_url)
        live.prefix = topic_prefix
        for one in (taken, elsewhere, live):
            with pytest.raises(StackError, match="exists already"):
                async with one.taken(topic_prefix, told.append):
                    raise AssertionError("not reached")
        assert await topics_under(kafka, prefix) == created
        assert told == []
    finally:
        await redis.delete(f"{name}-other.reward:read")
        await redis.aclose()


def _stop_after_copying(line: str) -> None:
    if line.startswith("copied"):
        raise asyncio.CancelledError  # as Ctrl-C does


async def replayed(
    services: Path,
    settings: Path | None = None,
    *,
    name: str | None = None,
    heard: Callable[[str], None] = lambda _: None,
) -> tuple[int, list[str]]:
    """Exit status and lines of a replay of the whole log."""
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        heard(line)

    plan = ReplayPlan(
        name=name or f"again-{secrets.token_hex(4)}",
        settings=settings,
        start=None,
        end=None,
        data_dir=services,
        source_prefix=None,
        train=False,
    )
    return await run_replay(plan, hear, hear), said
