"""The life of a rollout: what is queued, how an attempt ends, and whether there will be another."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime, Field

from leyden.events import (
    Failure,
    FailureClass,
    Json,
    Record,
    RolloutEnded,
    RolloutStarted,
    Task,
    TaskEnqueued,
)
from leyden.events.base import JsonObject
from leyden.ids import MAX_ATTEMPTS, AttemptRef, derive, rollout_id_of

PRODUCER = "gateway"


class RolloutState(StrEnum):
    """Where a rollout stands."""

    QUEUED = "queued"
    """Waits for a runner."""
    RUNNING = "running"
    """An attempt is under way, or its end is being written to the log."""
    ENDED = "ended"
    """Its last attempt is over."""


class RolloutSpec(Record):
    """What every attempt at one rollout shares; fixed when the rollout is accepted."""

    task: Task | None = None
    group_id: str
    group_size: int = 1
    max_attempts: int = 1
    timeout_s: float = 600.0

    @property
    def mode(self) -> str:
        """`train` or `validation`; a rollout of no task is for training."""
        return self.task.mode if self.task else "train"


class EndReport(Record):
    """How a runner (or the sweeper, for a runner that is lost) says that an attempt ended."""

    status: str
    failure: Failure | None = None
    reward: float | None = None
    output: Json = None
    span_count: int | None = None

    @property
    def fingerprint(self) -> str:
        """The same report, and no other, has this."""
        return derive("end-report", json.dumps(self.model_dump(mode="json"), sort_keys=True))


class StoredEnd(Record):
    """The first end of an attempt, as it is kept until the attempt is forgotten: nothing about it is decided twice."""

    fingerprint: str
    event: RolloutEnded
    """Without its calls, which are frozen beside it."""


@dataclass(frozen=True, slots=True)
class Running:
    """One attempt under way."""

    ref: AttemptRef
    spec: RolloutSpec
    started_at: datetime
    runner: str | None = None


class TaskRequest(Record):
    """What a task is accepted from."""

    task_id: str
    input: Json = None
    metadata: JsonObject = Field(default_factory=dict)
    mode: str = "train"
    samples: int = 1
    group_id: str | None = None
    max_attempts: int = 3
    timeout_s: float = 600.0


def task_enqueued(request: TaskRequest, now: AwareDatetime) -> TaskEnqueued:
    """The event that accepts a task; its rollouts' ids follow from the task's."""
    task = Task.model_validate(request.model_dump(include={"task_id", "input", "metadata", "mode"}))
    return TaskEnqueued(
        event_id=derive("task-enqueued", task.task_id),
        event_time=now,
        producer=PRODUCER,
        task=task,
        group_id=request.group_id or task.task_id,
        rollout_ids=[rollout_id_of(task.task_id, index) for index in range(request.samples)],
        max_attempts=min(request.max_attempts, MAX_ATTEMPTS),
        timeout_s=request.timeout_s,
    )


def specs_of(event: TaskEnqueued) -> list[tuple[str, RolloutSpec]]:
    """(rollout id, spec) of every rollout of a task."""
    spec = RolloutSpec(
        task=event.task,
        group_id=event.group_id,
        group_size=max(1, len(event.rollout_ids)),
        max_attempts=event.max_attempts,
        timeout_s=event.timeout_s,
    )
    return [(rollout_id, spec) for rollout_id in event.rollout_ids]


def rollout_started(running: Running) -> RolloutStarted:
    """The event of an attempt's begin."""
    return RolloutStarted(
        event_id=derive("rollout-started", *running.ref),
        event_time=running.started_at,
        producer=PRODUCER,
        rollout_id=running.ref.rollout_id,
        attempt=running.ref.attempt,
        task_id=running.spec.task.task_id if running.spec.task else None,
        group_id=running.spec.group_id,
        group_size=running.spec.group_size,
        runner=running.runner,
    )


def will_retry(status: str, attempt: int, max_attempts: int) -> bool:
    """Whether a rollout is tried again: only a failed attempt, and only while attempts are left."""
    return status == "failed" and attempt + 1 < max_attempts


def ended(running: Running, report: EndReport, now: datetime) -> StoredEnd:
    """The end of an attempt as it is kept, before its calls are known."""
    event = RolloutEnded.model_validate(
        {
            "event_id": derive("rollout-ended", *running.ref),
            "event_time": now,
            "producer": PRODUCER,
            "rollout_id": running.ref.rollout_id,
            "attempt": running.ref.attempt,
            "status": report.status,
            "failure": report.failure,
            "final": not will_retry(report.status, running.ref.attempt, running.spec.max_attempts),
            "task": running.spec.task,
            "group_id": running.spec.group_id,
            "group_size": running.spec.group_size,
            "call_ids": [],
            "span_count": report.span_count,
            "reward": report.reward,
            "output": report.output,
            "started_at": running.started_at,
        }
    )
    return StoredEnd(fingerprint=report.fingerprint, event=event)


def lease_until(running: Running, now: datetime, lease_s: float) -> datetime | None:
    """Until when a heartbeat keeps an attempt; None once the task's time and one lease more are over.

    A runner whose heart beats while its agent hangs does not hold a rollout for ever.
    """
    last = running.started_at + timedelta(seconds=running.spec.timeout_s + lease_s)
    until = min(now + timedelta(seconds=lease_s), last)
    return until if until > now else None


def lost(running: Running, now: datetime) -> EndReport:
    """How an attempt ends whose lease ran out."""
    if now >= running.started_at + timedelta(seconds=running.spec.timeout_s):
        failure = Failure(failure_class=FailureClass.TIMEOUT, message=f"not ended within {running.spec.timeout_s:g} s")
    else:
        failure = Failure(failure_class=FailureClass.RUNNER_LOST, message="the runner's lease ran out")
    return EndReport(status="failed", failure=failure)
