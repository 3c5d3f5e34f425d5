"""A replay from start to end: copy, run the ordinary services under their own prefix, compare, report.

The services have no replay mode. They get a topic prefix, and a run file that makes them follow recorded decisions.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from leyden.analysis.failed_rules import RuleFailures, read_rule_failures
from leyden.events import CheckpointSaved, VersionRegistered
from leyden.events.codec import (
    CHECKPOINTS,
    MODELS,
    SPANS,
)
from leyden.kafka.claims import ClaimStore
from leyden.kafka.settings import KafkaSettings
from leyden.kafka.tail import TopicTail, group_backlog
from leyden.reading import Log, LogLocation
from leyden.reading.location import claims_url_of
from leyden.reading.stages import STAGES
from leyden.replay.brokers import Brokers, brokers_of
from leyden.replay.compare import Comparison, Wanted, compare, read_transitions
from leyden.replay.copy import copy_recorded
from leyden.replay.names import ReplayName
from leyden.replay.past import REPORT, replays_of
from leyden.replay.training import TrainingComparison, compare_training, read_training
from leyden.stack.errors import StackError
from leyden.stack.plan import python_env
from leyden.stack.ports import free_ports
from leyden.stack.probes import HttpProbe, Probe
from leyden.stack.processes import ProcessSpec, Supervisor
from leyden.stack.run_file import run_file_problems

Tell = Callable[[str], None]
REPLAYED, TRAINING = ("reward", "credit"), ("trainer", "registry")
"""The stages of a replay, and those of one that trains."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


@dataclass(frozen=True, kw_only=True)
class ReplayPlan:
    """Options of `leyden replay`."""

    name: str
    settings: Path | None
    start: datetime | None
    end: datetime | None
    data_dir: Path
    source_prefix: str | None
    train: bool


async def run_replay(plan: ReplayPlan, tell: Tell, say: Tell) -> int:
    """Run the replay and print its result. Returns 1 if the same settings gave other transitions or weights, else 0.

    If it fails, its topics and its state are deleted, so that the name can be used again. Raises StackError.
    """
    if not _NAME.fullmatch(plan.name):
        raise StackError(f"--name {plan.name!r}: use lower-case letters, digits and dashes; it becomes a topic prefix.")
    with brokers_of(plan.data_dir) as brokers:
        replay = _Replay(plan, brokers, tell, say)
        await asyncio.to_thread(replay.check_run_file)
        name = ReplayName(plan.name, replay.folder, replay.kafka, brokers.redis_url)
        async with name.taken(brokers.stack.topic_prefix, tell):
            return await replay.run()


class _Replay:
    def __init__(self, plan: ReplayPlan, brokers: Brokers, tell: Tell, say: Tell) -> None:
        self.plan, self.brokers, self.tell, self.say = plan, brokers, tell, say
        self.source = plan.source_prefix if plan.source_prefix is not None else brokers.stack.topic_prefix
        self.target = f"{plan.name}."
        self.kafka = KafkaSettings(bootstrap_servers=brokers.kafka_servers)
        self.claims = ClaimStore(claims_url_of(brokers.stack))
        self.folder = replays_of(plan.data_dir) / plan.name
        self.began = datetime.now(UTC)
        """Before the copy: what the live services write later is not compared."""

    def check_run_file(self) -> None:
        """Raise StackError with all problems if the run file is wrong, before anything is made."""
        path = self.plan.settings or self.brokers.stack.run_file
        if path is not None and (wrong := run_file_problems(path, self._env("reward"))):
            raise StackError("The run file is wrong:\n" + "\n".join(wrong))

    async def run(self) -> int:
        same_settings, same_training = self._write_run_file()
        taken = await copy_recorded(
            self.kafka, source=self.source, target=self.target, start=_utc(self.plan.start), end=_utc(self.plan.end)
        )
        records = sum(last - first for first, last in taken.values())
        if not records:
            raise StackError("No records between --from and --to.")
        self.tell(f"copied {records} records to topics under {self.target}")
        stages = stages_of(_read_yaml(self.folder / "run.yaml"))
        stages += tuple((name, STAGES[name]) for name in TRAINING if self.plan.train)
        await self._run_services(stages)
        comparison = await self._compare()
        versions = await self._versions() if self.plan.train else []
        training = await self._compare_training() if self.plan.train and self._whole else None
        self._write_report(taken, comparison, versions, training)
        for line in (await self._rule_failures()).lines():
            self.say(line)
        differs = self._tell_outcome(comparison, versions)
        differs_in_training = self._tell_training(training) and same_training
        return 1 if same_settings and (differs or differs_in_training) else 0

    @property
    def _whole(self) -> bool:
        """Whether the whole log is replayed. It must give every group that it gave before."""
        return self.plan.start is None and self.plan.end is None

    def _write_run_file(self) -> tuple[bool, bool]:
        """Write the replay's run file. Returns whether rewards and credit, and training, are set as live."""
        live = _read_yaml(self.brokers.stack.run_file)
        chosen = _read_yaml(self.plan.settings) if self.plan.settings else live
        same = all(live.get(section) == chosen.get(section) for section in ("reward", "credit"))
        same_training = live.get("trainer") == chosen.get("trainer")
        made = following_the_record(chosen)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "run.yaml").write_text(yaml.safe_dump(made, sort_keys=False))
        return same, same_training

    async def _run_services(self, stages: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        """Run one stage after another, so that the input of each is complete."""
        with Supervisor(f"replay-{self.plan.name}-{int(time.time())}", self.folder / "logs") as supervisor:
            for (name, topics), port in zip(stages, free_ports(len(stages)), strict=True):
                env = self._env(name) | {"LEYDEN_OPS_PORT": str(port)}
                supervisor.start(ProcessSpec(name=name, argv=(sys.executable, "-m", f"leyden.{name}"), env=env))
                ready = HttpProbe(f"http://127.0.0.1:{port}/readyz")
                await self._drained(supervisor, name, topics, ready)
            supervisor.check()

    def _env(self, name: str) -> dict[str, str]:
        """The environment of the live service, but with the replay's own topics, folders and run file."""
        stack = self.brokers.stack
        beside = [path.parent for path in (self.plan.settings, stack.run_file) if path]
        env = python_env(stack) | stack.env | stack.process_env.get(name, {})
        env["PYTHONPATH"] = ":".join([*(str(folder.resolve()) for folder in beside), env["PYTHONPATH"]])
        return env | {
            "KAFKA_BOOTSTRAP_SERVERS": self.brokers.kafka_servers,
            "REDIS_URL": self.brokers.redis_url,
            "LEYDEN_TOPIC_PREFIX": self.target,
            "LEYDEN_DATA_DIR": str(stack.data_dir / "services"),
            "LEYDEN_RUN_FILE": str(self.folder / "run.yaml"),
            "LEYDEN_TRAINER_MODEL": self.brokers.model,
            "LEYDEN_TRAINER_CHECKPOINT_DIR": str(self.folder / "checkpoints"),
            "LEYDEN_REGISTRY_PROMOTE": "manual",
            "LEYDEN_REGISTRY_EXPERIMENT": self.plan.name,
        }

    async def _drained(self, supervisor: Supervisor, name: str, topics: tuple[str, ...], ready: Probe) -> None:
        """Wait until the service has read everything and is ready (reward is not ready while it waits for a judge)."""
        began, told, group = time.monotonic(), -1, consumer_group(name)
        idle = False
        while (waiting := await group_backlog(self.kafka, self.target, group, topics)) > 0 or not idle:
            supervisor.check()
            if waiting != told:
                self.tell(f"{name}: {waiting} records left")
                told = waiting
            idle = waiting == 0 and await asyncio.to_thread(ready)
            if not idle:
                await asyncio.sleep(0.5)
        self.tell(f"{name} finished after {time.monotonic() - began:.1f} s")

    async def _compare(self) -> Comparison:
        replayed = await read_transitions(self.kafka, self.claims, self.target)
        # A part of the log holds some groups only partly.
        wanted = Wanted(replayed.credits, None if self._whole else replayed.groups, before=self.began)
        recorded = await read_transitions(self.kafka, self.claims, self.source, wanted)
        self.say(f"{replayed.sequences} sequences in {len(replayed.groups)} groups")
        return compare(recorded, replayed)

    async def _rule_failures(self) -> RuleFailures:
        location = LogLocation(self.kafka, self.target, claims_url_of(self.brokers.stack))
        async with Log(location) as log:
            return await read_rule_failures(log)

    async def _compare_training(self) -> TrainingComparison:
        recorded = await read_training(self.kafka, self.claims, self.source, before=self.began)
        return compare_training(recorded, await read_training(self.kafka, self.claims, self.target))

    async def _versions(self) -> list[VersionRegistered]:
        """The versions that this replay registered, once there is one for each checkpoint."""
        found: dict[int, VersionRegistered] = {}
        saved: set[int] = set()
        async with TopicTail(self.kafka, self.claims, self.target, (MODELS, CHECKPOINTS)) as tail, asyncio.timeout(60):
            quiet = 0
            while quiet < 3 or len(found) < len(saved):
                events = await tail.poll()
                quiet = 0 if events else quiet + 1
                for event in events:
                    if isinstance(event, VersionRegistered):
                        found[event.version] = event
                    if isinstance(event, CheckpointSaved):
                        saved.add(event.version)
        return [found[version] for version in sorted(found)]

    def _write_report(
        self,
        taken: dict[str, tuple[int, int]],
        comparison: Comparison,
        versions: list[VersionRegistered],
        training: TrainingComparison | None,
    ) -> None:
        report = {
            "name": self.plan.name,
            "source_prefix": self.source,
            "offsets": taken,
            "comparison": vars(comparison) | {"identical": comparison.identical},
            "training": vars(training) | {"identical": training.identical} if training else None,
            "versions": [json.loads(version.model_dump_json()) for version in versions],
        }
        (self.folder / REPORT).write_text(json.dumps(report, indent=2))

    def _tell_outcome(self, comparison: Comparison, versions: list[VersionRegistered]) -> bool:
        """Print the result; True if the transitions differ."""
        self.say(f"recorded transitions {comparison.recorded_digest}")
        self.say(f"replayed transitions {comparison.replayed_digest}")
        if comparison.identical:
            self.say(f"identical: {comparison.same} of {comparison.same} events, byte for byte")
        else:
            self.say(
                f"different: {comparison.same} events the same, {comparison.different} changed, "
                f"{comparison.only_recorded} only recorded, {comparison.only_replayed} only replayed"
            )
        for version in versions[-1:]:
            self.say(f"candidate {version.policy}@{version.version}: {version.merged_weights}")
            self.say(f"weights {version.lineage.weights_sha256}, manifest {version.lineage.manifest_sha256}")
        return not comparison.identical

    def _tell_training(self, training: TrainingComparison | None) -> bool:
        """Print how the training compares, and where the report is; True if it differs."""
        for line in training.lines() if training else ():
            self.say(line)
        self.say(f"report {self.folder / REPORT}")
        return training is not None and not training.identical


def consumer_group(service: str) -> str:
    """Consumer group of the service, with the name that it inherits (`LEYDEN_CREDIT_NAME`), if any."""
    name = os.environ.get(f"LEYDEN_{service.upper()}_NAME")
    return f"{service}-{name}" if name else service


def stages_of(run_file: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The services of a replay in order, with the topics that each reads; credit reads spans only with `agents:`."""
    of_agents = {"credit": (SPANS,)} if (run_file.get("credit") or {}).get("agents") else {}
    return tuple((name, STAGES[name] + of_agents.get(name, ())) for name in REPLAYED)


def following_the_record(run_file: Mapping[str, Any]) -> dict[str, Any]:
    """The same run file, but settlements and group members follow the log."""
    reward, credit = run_file.get("reward") or {}, run_file.get("credit") or {}
    group = (credit.get("group") or {}) | {"close": "recorded"}
    return {**run_file, "reward": reward | {"settle": "recorded"}, "credit": credit | {"group": group}}


def _read_yaml(path: Path | None) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text()) or {}) if path else {}


def _utc(moment: datetime | None) -> datetime | None:
    """The time, as UTC if it has no zone."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
