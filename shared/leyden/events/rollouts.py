"""Tasks and the rollouts made of them: `tasks.v1` and `rollouts.v1`."""

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from leyden.events.base import Event, Json, JsonObject, OfAttempt, Record


class FailureClass(StrEnum):
    """Why an attempt failed."""

    AGENT_EXCEPTION = "agent_exception"
    """The agent's own code raised."""
    TIMEOUT = "timeout"
    """The agent did not end in the task's time."""
    RUNNER_LOST = "runner_lost"
    """The runner stopped sending heartbeats: its lease ran out."""
    MODEL_ERROR = "model_error"
    """The model's answer was an error that the agent could not get past."""
    INFRASTRUCTURE = "infrastructure"
    """Nothing that the agent did: never a reward of 0."""
    TOOL_ERROR = "tool_error"
    """A tool of the agent failed, and the agent did not get past it."""
    CONTEXT_OVERFLOW = "context_overflow"
    """A prompt was longer than the model takes."""
    MALFORMED_OUTPUT = "malformed_output"
    """The model answered, and the agent could not read the answer: no JSON, or not of the wanted form."""
    REPETITION_LOOP = "repetition_loop"
    """The model gave the same output again and again until the attempt failed."""
    CANCELLED = "cancelled"
    """Somebody called the rollout off; it is never tried again."""


class FailureEvidence(Record):
    """What shows that a failure is of its class; small, so that it stays in the log with the end."""

    error_type: str | None = None
    """The exception's class, qualified."""
    traceback: str | None = None
    """The end of the traceback."""
    tool: str | None = None
    """The tool that failed, where it is known."""
    call_id: str | None = None
    """The attempt's last model call."""
    call_error: str | None = None
    """The error that this call was recorded with."""
    finish_reason: str | None = None
    """Why this call's answer stopped: `length` is one that was cut off."""
    repeats: int | None = Field(default=None, ge=1)
    """How many of the last calls in a row had the same output."""
    reported_class: FailureClass | None = None
    """What the runner had said, where the gateway knew better."""


class Failure(Record):
    """What ended an attempt early, with the evidence."""

    failure_class: FailureClass
    message: str = ""
    evidence: FailureEvidence | None = None


class RetryPolicy(Record):
    """When a failed attempt is followed by another; how many there are at most is the task's `max_attempts`.

    The n-th retry waits `backoff_s` * 2^(n-1) seconds, at most `backoff_cap_s`, less up to a half of it that follows
    from the attempt's id: attempts that failed together do not come back together, and every replica agrees when.
    """

    backoff_s: float = Field(default=1.0, ge=0, le=86_400)
    backoff_cap_s: float = Field(default=60.0, ge=0, le=86_400)
    on: list[FailureClass] | None = None
    """Failures that are tried again; None: all but `cancelled`, which never is."""


class Task(Record):
    """What an agent is asked to do. `input` is shown to the agent; `metadata` (a reference answer, say) is not."""

    task_id: str
    input: Json = None
    metadata: JsonObject = Field(default_factory=dict)
    mode: Literal["train", "validation"] = "train"


class TaskEnqueued(Event):
    """A task was accepted, to be rolled out `samples` times; its rollouts form one group."""

    type: Literal["task-enqueued"] = "task-enqueued"
    task: Task
    group_id: str
    rollout_ids: list[str]
    max_attempts: int = Field(default=3, ge=1)
    timeout_s: float = Field(default=600.0, gt=0)
    retry: RetryPolicy = RetryPolicy()
    priority: int = 0
    """Higher ones are claimed first, among the tasks of the same mode."""
    project: str | None = None
    """Whose task it is: runners with a key of a project claim that project's tasks."""


class QueuePaused(Event):
    """No more rollouts are handed out, of one project or of all; what runs goes on."""

    type: Literal["queue-paused"] = "queue-paused"
    project: str | None = None
    """None: all projects."""
    reason: str = ""


class QueueResumed(Event):
    """Rollouts are handed out again."""

    type: Literal["queue-resumed"] = "queue-resumed"
    project: str | None = None
    """None: the pause of all projects is over; one of a single project stays."""


class RolloutStarted(OfAttempt):
    """A runner (or an agent of its own accord) began an attempt."""

    type: Literal["rollout-started"] = "rollout-started"
    task_id: str | None = None
    group_id: str
    group_size: int = Field(ge=1)
    runner: str | None = None


class RolloutEnded(OfAttempt):
    """An attempt is over, and this many model calls were recorded for it.

    `final` is False when the rollout will be tried again; then nothing of this attempt is ever trained.
    """

    type: Literal["rollout-ended"] = "rollout-ended"
    status: Literal["succeeded", "failed"]
    failure: Failure | None = None
    final: bool = True
    retry_at: AwareDatetime | None = None
    """When the next attempt may begin; None for a final end."""
    task: Task | None = None
    group_id: str
    group_size: int = Field(ge=1)
    call_ids: list[str]
    """Every model call of the attempt that Kafka had acknowledged when it ended, sorted."""
    span_count: int | None = None
    """How many spans the client library exported for the attempt; None when nobody counted."""
    reward: float | None = None
    output: Json = None
    started_at: AwareDatetime


class RolloutSettled(OfAttempt):
    """The evidence of an attempt was declared complete (or given up on), and is exactly this.

    Written by the reward service once; whatever later looks at the attempt, a replay included, follows this record.
    """

    type: Literal["rollout-settled"] = "rollout-settled"
    call_ids: list[str]
    span_ids: list[str]
    complete: bool
    missing: list[str] = Field(default_factory=list)
    """Ids of calls that were announced and never came, and `spans:<n>` for n missing spans."""
