"""The life of a rollout: queueing, the end of an attempt, retries."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime, Field

from leyden.events import (
    Failure,
    FailureClass,
    Json,
    QueuePaused,
    QueueResumed,
    Record,
    RetryPolicy,
    RolloutEnded,
    RolloutStarted,
    Task,
    TaskEnqueued,
)
from leyden.events.base import MAX_TIMEOUT_S, JsonObject
from leyden.ids import MAX_ATTEMPTS, ROLLOUT_MARK, AttemptRef, derive, rollout_id_of

PRODUCER = "gateway"
MAX_INTERRUPTIONS = 10
"""Further interrupted attempts count: what makes its runner be stopped each time is not made again for ever."""
MAX_DOUBLINGS = 32
"""Maximum exponent of a retry's delay; every cap is reached by then."""


class RolloutState(StrEnum):
    """State of a rollout."""

    QUEUED = "queued"
    """Waits for a runner."""
    RUNNING = "running"
    """An attempt is running, or its end is being written to the log."""
    ENDED = "ended"
    """Its last attempt is over."""


class RolloutSpec(Record):
    """Common data of all attempts of a rollout; fixed when it is accepted."""

    task: Task | None = None
    group_id: str
    group_size: int = 1
    max_attempts: int = 1
    timeout_s: float = 600.0
    retry: RetryPolicy = RetryPolicy()
    priority: int = 0
    project: str | None = None
    begun_by: str | None = None
    """Id of the key that started the rollout by itself; None for queued ones."""

    @property
    def mode(self) -> str:
        """`train` or `validation`; a rollout without a task is for training."""
        return self.task.mode if self.task else "train"

    @property
    def lane(self) -> str:
        """Its queue: one per mode and project."""
        return f"{self.mode}:{self.project or ''}"


class EndReport(Record):
    """The report of an attempt's end by a runner, or by the sweeper for a lost one."""

    status: str
    failure: Failure | None = None
    reward: float | None = None
    output: Json = None
    span_count: int | None = None

    @property
    def fingerprint(self) -> str:
        """A digest of the report."""
        return derive("end-report", json.dumps(self.model_dump(mode="json"), sort_keys=True))


class StoredEnd(Record):
    """The first end of an attempt, stored until the attempt expires. Nothing about it is decided twice."""

    fingerprint: str
    event: RolloutEnded
    """Without its calls, which are stored separately."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running attempt."""

    ref: AttemptRef
    spec: RolloutSpec
    started_at: datetime
    runner: str | None = None
    interrupted: int = 0
    """How many earlier attempts of the rollout were interrupted."""


class TaskRequest(Record):
    """A request to accept a task."""

    task_id: str
    input: Json = None
    metadata: JsonObject = Field(default_factory=dict)
    mode: str = "train"
    samples: int = 1
    group_id: str | None = None
    max_attempts: int = 3
    timeout_s: float = 600.0
    retry: RetryPolicy = RetryPolicy()
    priority: int = 0
    project: str | None = None


def in_project(project: str | None, name: str) -> str:
    """A name that a caller chose, as it is kept: each project has its own tasks and groups."""
    return name if project is None else f"{project}/{name}"


def task_enqueued(request: TaskRequest, now: AwareDatetime, owner: str = "") -> TaskEnqueued:
    """The event that accepts a task; its rollouts' ids are derived from the task's and its owner's."""
    task = Task.model_validate(request.model_dump(include={"task_id", "input", "metadata", "mode"}))
    return TaskEnqueued(
        event_id=derive("task-enqueued", in_project(request.project, task.task_id)),
        event_time=now,
        producer=PRODUCER,
        task=task,
        group_id=in_project(request.project, request.group_id or task.task_id),
        rollout_ids=[rollout_id_of(task.task_id, index, owner) for index in range(request.samples)],
        max_attempts=min(request.max_attempts, MAX_ATTEMPTS),
        timeout_s=request.timeout_s,
        retry=request.retry,
        priority=request.priority,
        project=request.project,
    )


def specs_of(event: TaskEnqueued) -> list[tuple[str, RolloutSpec]]:
    """(rollout id, spec) of every rollout of a task."""
    spec = RolloutSpec(
        task=event.task,
        group_id=event.group_id,
        group_size=max(1, len(event.rollout_ids)),
        max_attempts=event.max_attempts,
        timeout_s=min(event.timeout_s, MAX_TIMEOUT_S),
        retry=event.retry,
        priority=event.priority,
        project=event.project,
    )
    return [(rollout_id, spec) for rollout_id in event.rollout_ids]


def queue_event(project: str | None, paused: bool, reason: str, now: datetime) -> QueuePaused | QueueResumed:
    """The event of a pause, of a project or all, or of its end."""
    shared = {"event_time": now, "producer": PRODUCER, "project": project}
    about = (project or "", now.isoformat())
    if paused:
        return QueuePaused.model_validate(shared | {"event_id": derive("queue-paused", *about), "reason": reason})
    return QueueResumed.model_validate(shared | {"event_id": derive("queue-resumed", *about)})


def rollout_started(running: Running) -> RolloutStarted:
    """The event of an attempt's start."""
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
        project=running.spec.project,
        begun_by=running.spec.begun_by,
    )


def begun_rollout_id(key_id: str | None, idempotency_key: str) -> str:
    """The id of the rollout that an API key starts with this idempotency key."""
    return ROLLOUT_MARK + derive("begun", key_id or "", idempotency_key)[:23]


def will_retry(status: str, failure: Failure | None, attempt: int, spec: RolloutSpec, interrupted: int = 0) -> bool:
    """Whether a rollout is retried: its retry policy has the failure class, and attempts are left.

    `interrupted`: how many earlier attempts were interrupted; the first `MAX_INTERRUPTIONS` do not count. A rollout of
    one attempt (`max_attempts` 1) is never retried.
    """
    if status != "failed" or spec.max_attempts == 1 or attempt + 1 >= MAX_ATTEMPTS:
        return False
    why = failure.failure_class if failure else FailureClass.AGENT_EXCEPTION
    if why is FailureClass.INTERRUPTED and interrupted < MAX_INTERRUPTIONS:
        return True
    if attempt + 1 - min(interrupted, MAX_INTERRUPTIONS) >= spec.max_attempts:
        return False
    return why is not FailureClass.CANCELLED and (spec.retry.on is None or why in spec.retry.on)


def retry_delay(ref: AttemptRef, policy: RetryPolicy) -> timedelta:
    """Seconds from the failure of attempt `ref` until the next may start; deterministic."""
    whole = min(policy.backoff_cap_s, policy.backoff_s * 2.0 ** min(ref.attempt, MAX_DOUBLINGS))
    share = int(derive("retry-delay", *ref)[:8], 16) / 0xFFFFFFFF
    return timedelta(milliseconds=round(1000 * whole * (1 - share / 2)))


def ended(running: Running, report: EndReport, now: datetime, failure: Failure | None = None) -> StoredEnd:
    """The end of an attempt to store, before its calls are known. `failure` replaces that of the report."""
    failure = failure or report.failure
    again = will_retry(report.status, failure, running.ref.attempt, running.spec, running.interrupted)
    at_once = was_interrupted(failure) and running.interrupted == 0
    delay = timedelta() if at_once else retry_delay(running.ref, running.spec.retry)
    event = RolloutEnded.model_validate(
        {
            "event_id": derive("rollout-ended", *running.ref),
            "event_time": now,
            "producer": PRODUCER,
            "rollout_id": running.ref.rollout_id,
            "attempt": running.ref.attempt,
            "status": report.status,
            "failure": failure,
            "final": not again,
            "retry_at": now + delay if again else None,
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
    """Until when a heartbeat extends the lease; None after the task's time plus one lease.

    So a runner that sends heartbeats for a hanging agent does not hold a rollout forever.
    """
    last = running.started_at + timedelta(seconds=running.spec.timeout_s + lease_s)
    until = min(now + timedelta(seconds=lease_s), last)
    return until if until > now else None


def lost(running: Running, now: datetime) -> EndReport:
    """The end of an attempt with an expired lease."""
    if now >= running.started_at + timedelta(seconds=running.spec.timeout_s):
        failure = Failure(failure_class=FailureClass.TIMEOUT, message=f"not ended within {running.spec.timeout_s:g} s")
    else:
        failure = Failure(failure_class=FailureClass.RUNNER_LOST, message="the runner's lease ran out")
    return EndReport(status="failed", failure=failure)


def cancelled(reason: str) -> EndReport:
    """The end of a cancelled attempt."""
    failure = Failure(failure_class=FailureClass.CANCELLED, message=reason or "cancelled")
    return EndReport(status="failed", failure=failure)


def was_interrupted(failure: Failure | None) -> bool:
    """Whether an attempt ended because its runner was stopped."""
    return failure is not None and failure.failure_class is FailureClass.INTERRUPTED


def was_cancelled(event: RolloutEnded) -> bool:
    """Whether the end is a cancellation."""
    return event.failure is not None and event.failure.failure_class is FailureClass.CANCELLED
