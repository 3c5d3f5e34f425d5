"""Lists of rollouts and versions, read from the log."""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from leyden.analysis.rollouts import TOPICS, Rollouts, RolloutStatus, SeenRollout
from leyden.cli.formatting import print_columns
from leyden.cli.watching import LoopWatch
from leyden.kafka.types import KafkaError
from leyden.reading import Log, log_location
from leyden.reading.follow import Follower
from leyden.reading.model_wait import read_model_wait
from leyden.stack.progress import Progress

EVERY_S = 1.0
COLUMNS = ("id", "status", "mode", "version", "reward", "s", "task", "error")


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which rollouts; every condition that is set must hold."""

    mode: str | None = None
    statuses: frozenset[RolloutStatus] = frozenset()
    version: str | None = None
    """`policy@4`, or the number alone."""
    min_reward: float | None = None
    max_reward: float | None = None
    error: str | None = None
    """A failure class, or a part of a failure's message or of a failed reward rule's; upper or lower case."""
    task: str | None = None

    def takes(self, one: SeenRollout) -> bool:
        """Whether the rollout is wanted."""
        reward = one.newest.reward
        versions = {f"{policy}@{number}" for policy, number in one.newest.versions.items()}
        versions |= {str(number) for number in one.newest.versions.values()}
        return (
            self.mode in (None, one.mode)
            and (not self.statuses or one.status in self.statuses)
            and (self.version is None or self.version in versions)
            and (self.min_reward is None or (reward is not None and reward >= self.min_reward))
            and (self.max_reward is None or (reward is not None and reward <= self.max_reward))
            and (self.error is None or self.error.lower() in _why(one).lower())
            and self.task in (None, one.task_id, one.group_id)
        )


async def list_rollouts(
    data_dir: Path, prefix: str | None, tell: Progress, wanted: Filter, limit: int, as_json: bool, console: Console
) -> None:
    """Print the newest `limit` rollouts (0: all) as a table or as JSON lines, oldest first."""
    with log_location(data_dir) as location:
        async with Log(location, prefix, tell) as log:
            seen = Rollouts()
            async for one in Follower(log, TOPICS).poll():
                seen.see(one.event)
    tell.close()
    found = sorted((one for one in seen if wanted.takes(one)), key=_moment)
    shown = found[-limit:] if limit else found
    running = any(one.status is RolloutStatus.RUNNING for one in shown)
    model = await asyncio.to_thread(read_model_wait, location, log.prefix, data_dir) if running else None
    calling = model.attempts if model is not None else {}
    if as_json:
        for rollout in shown:
            document = as_document(rollout) | {"waits_for_model_s": calling.get(rollout.trace_id)}
            console.file.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    if shown:
        rows = [_cells(rollout, calling.get(rollout.trace_id)) for rollout in shown]
        print_columns(COLUMNS, rows, console, right=("reward", "s"))
    console.print(f"{len(shown)} of {len(found)} such rollouts, of {len(seen)} in the log", highlight=False)


async def follow_rollouts(
    data_dir: Path, prefix: str | None, tell: Progress, wanted: Filter, as_json: bool, console: Console
) -> None:
    """Print each wanted rollout that ends from now on, once its rewards are known, as a line. Never returns."""
    with log_location(data_dir) as location:
        async with Log(location, prefix, tell) as log:
            seen, told, follower = Rollouts(), set[str](), Follower(log, TOPICS)
            first = True
            while True:
                try:
                    async for one in follower.poll():
                        seen.see(one.event)
                except KafkaError as error:
                    tell(f"Kafka does not answer: {error}")
                tell.close()
                done = [one for one in seen if one.rollout_id not in told and one.ended and one.newest.revision >= 0]
                told |= {one.rollout_id for one in done}
                for rollout in sorted(done, key=_moment) if not first else ():
                    if wanted.takes(rollout):
                        document = json.dumps(as_document(rollout), ensure_ascii=False)
                        line = document if as_json else "  ".join(_cells(rollout))
                        console.print(line, markup=False, highlight=False, soft_wrap=True)
                first = False
                await asyncio.sleep(EVERY_S)


async def list_versions(data_dir: Path, prefix: str | None, tell: Progress, as_json: bool, console: Console) -> None:
    """Print every version as a table or as JSON."""
    with log_location(data_dir) as location:
        async with Log(location, prefix, tell) as log:
            watch = LoopWatch(log, location)
            await watch.catch_up()
    tell.close()
    models = watch.state.models()
    if as_json:
        console.file.write(json.dumps([one.model_dump(mode="json") for one in models], indent=2) + "\n")
        return
    rewards = ("held out", "training", "step's")
    rows = []
    for model in models:
        at = "-" if model.at is None else f"{model.at.astimezone(UTC):%m-%d %H:%M:%S}"
        numbers = ("-" if n is None else f"{n:.3f}" for n in (model.held_out, model.reward, model.step_reward))
        rows.append((model.version, model.state, at, *numbers, model.weights or "-"))
    print_columns(("version", "state", "registered", *rewards, "weights"), rows, console, right=rewards)
    console.print("mean rewards: of held-out and of training rollouts that it answered; of the step that made it")


def as_document(one: SeenRollout) -> dict[str, Any]:
    """The rollout as JSON."""
    newest = one.newest
    failure = newest.failure
    return {
        "rollout_id": one.rollout_id,
        "attempt": max(one.attempt, 0),
        "trace_id": one.trace_id,
        "status": one.status,
        "mode": one.mode,
        "task_id": one.task_id,
        "group_id": one.group_id,
        "versions": [f"{policy}@{number}" for policy, number in sorted(newest.versions.items())],
        "reward": newest.reward,
        "seconds": newest.seconds,
        "calls": len(newest.calls),
        "at": _moment(one).isoformat(),
        "failure_class": failure.failure_class if failure else None,
        "message": failure.message if failure else None,
        "failed_rules": list(newest.failed_rules),
    }


def _moment(one: SeenRollout) -> datetime:
    return one.at or datetime.min.replace(tzinfo=UTC)


def _why(one: SeenRollout) -> str:
    """Class and message of its failure, or what its reward rules failed with."""
    failure = one.newest.failure
    parts = [f"{failure.failure_class}: {failure.message}" if failure else "", *one.newest.failed_rules]
    return "; ".join(" ".join(part.split()) for part in parts if part)


def _cells(one: SeenRollout, waits_s: float | None = None) -> list[str]:
    """`waits_s`: for how long its model call has waited for an answer."""
    reward, seconds = one.newest.reward, one.newest.seconds
    numbers = ["-" if reward is None else f"{reward:.3f}", "-" if seconds is None else f"{seconds:.1f}"]
    why = _why(one)[:200] if waits_s is None else f"waits for the model, for {waits_s:.0f} s"
    return [one.trace_id, one.status, one.mode, one.version or "-", *numbers, one.task_id or "-", why]
