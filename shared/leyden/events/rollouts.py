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


class Failure(Record):
    """What ended an attempt early, with the evidence."""

    failure_class: FailureClass
    message: str = ""


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
