"""What a training's log has: tasks, their rollouts and rewards, groups and steps."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import command_support as s
from leyden.events import (
    BatchFormed,
    BatchGroup,
    BatchManifest,
    Event,
    Failure,
    FailureClass,
    Task,
    TaskEnqueued,
    TrainingStepCompleted,
)
from leyden.ids import derive, rollout_id_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def enqueued(task: dict[str, Any], samples: int = 2) -> TaskEnqueued:
    task_id = task["task_id"]
    rollouts = [rollout_id_of(task_id, n) for n in range(samples)]
    return TaskEnqueued(
        event_id=derive("enqueued", task_id), event_time=NOW, producer="gateway", group_id=task_id,
        task=Task.model_validate(task), rollout_ids=rollouts,
    )  # fmt: skip


def lived(event: TaskEnqueued, values: Sequence[float | None], failed_rule: str = "") -> list[Event]:
    """The task's rollouts with these rewards; None: it failed."""
    found: list[Event] = [event]
    for rollout_id, value in zip(event.rollout_ids, values, strict=True):
        given_ = [s.outcome(rollout_id, value)] if value is not None and not failed_rule else []
        failure = Failure(failure_class=FailureClass.AGENT_EXCEPTION, message="KeyError: 'x'")
        end: dict[str, Any] = {"status": "failed", "failure": failure} if value is None else {}
        found += [s.ended(rollout_id, ["c"], task=event.task, group_id=event.group_id, **end), *given_]
        found.append(s.completed(rollout_id, given_, failed_rules=[failed_rule] if failed_rule else []))
    return found


def credited(event: TaskEnqueued, **changes: Any) -> Event:
    return s.group_end(changes.pop("sequences", 2), group_id=event.group_id, **changes)


def step(number: int, reward: float, groups: Sequence[str] = (), version: int | None = None) -> list[Event]:
    manifest = BatchManifest(
        sequence_ids=[], group_ids=list(groups), origins=[], positions={}, seed=0, settings_hash="h"
    )
    about: dict[str, Any] = {"event_time": NOW, "producer": "trainer", "policy": "p"}
    batch = BatchFormed(
        event_id=f"b{number}", step=number, version=number - 1, groups=[BatchGroup(group_id=g) for g in groups or "x"],
        sequence_ids=[], groups_per_step=2, seed=0, settings_hash="h", **about,
    )  # fmt: skip
    done = TrainingStepCompleted(
        event_id=f"s{number}", step=number, version=number if version is None else version,
        metrics={"reward/mean": reward}, manifest=manifest, **about,
    )  # fmt: skip
    return [batch, done]
