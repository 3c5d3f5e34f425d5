"""Events of `tasks.v1` and `rollouts.v1`: tasks, and the rollouts made from them."""

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from leyden.events.base import Event, Json, JsonObject, OfAttempt, Record


class FailureClass(StrEnum):
    """Why an attempt failed."""

    AGENT_EXCEPTION = "agent_exception"
    """The agent's own code raised an exception."""
    TIMEOUT = "timeout"
    """The agent did not finish within the task's timeout."""
    RUNNER_LOST = "runner_lost"
    """The runner stopped sending heartbeats and its lease expired."""
    MODEL_ERROR = "model_error"
    """A model call returned an error that the agent did not handle."""
    INFRASTRUCTURE = "infrastructure"
    """A fault outside the agent. It is never a reward of 0."""
    INTERRUPTED = "interrupted"
    """The runner was stopped while the attempt ran. It does not count among the task's `max_attempts`."""
    TOOL_ERROR = "tool_error"
    """A tool failed with an error that the agent did not handle."""
    CONTEXT_OVERFLOW = "context_overflow"
    """A prompt was longer than the model's context."""
    MALFORMED_OUTPUT = "malformed_output"
    """The agent could not parse the model's response: invalid JSON, or not in the expected format."""
    REPETITION_LOOP = "repetition_loop"
    """The model repeated the same output until the attempt failed."""
    CANCELLED = "cancelled"
    """The rollout was cancelled. It is never retried."""


class FailureEvidence(Record):
    """Why a failure was classified as it was. Small, because it is stored in `RolloutEnded`."""

    error_type: str | None = None
    """Qualified name of the exception's class."""
    traceback: str | None = None
    """The end of the traceback."""
    tool: str | None = None
    """The tool that failed, if known."""
    call_id: str | None = None
    """Id of the attempt's last model call."""
    call_error: str | None = None
    """The recorded error of that call."""
    finish_reason: str | None = None
    """Finish reason of that call; `length` if the response was cut off."""
    repeats: int | None = Field(default=None, ge=1)
    """Number of consecutive last calls with the same output."""
    unanswered_calls: int | None = Field(default=None, ge=1)
    """Number of model calls that waited for an answer when the attempt ended: the model was slow, not the agent."""
    waited_s: float | None = Field(default=None, ge=0)
    """How long the oldest of them had waited."""
    reported_class: FailureClass | None = None
    """The class reported by the runner, if the gateway changed it."""


class Failure(Record):
    """Why an attempt failed, with evidence."""

    failure_class: FailureClass
    message: str = ""
    evidence: FailureEvidence | None = None


class RetryPolicy(Record):
    """When a failed attempt is retried. The task's `max_attempts` limits the number of attempts.

    The n-th retry waits `backoff_s` * 2^(n-1) seconds, at most `backoff_cap_s`, minus up to half of that. The reduction
    is derived from the attempt's id: attempts that failed together are spread out, and all replicas compute the same.
    """

    backoff_s: float = Field(default=1.0, ge=0, le=86_400)
    backoff_cap_s: float = Field(default=60.0, ge=0, le=86_400)
    on: list[FailureClass] | None = None
    """Failure classes to retry; None: all. `cancelled` is never retried, `interrupted` always."""


class Task(Record):
    """A task for an agent. The agent gets `input`, but not `metadata` (a reference answer, say)."""

    task_id: str
    input: Json = None
    metadata: JsonObject = Field(default_factory=dict)
    mode: Literal["train", "validation"] = "train"


class TaskEnqueued(Event):
    """A task was enqueued, with one rollout for each of `rollout_ids`. Its rollouts form one group."""

    type: Literal["task-enqueued"] = "task-enqueued"
    task: Task
    group_id: str
    rollout_ids: list[str]
    max_attempts: int = Field(default=3, ge=1)
    timeout_s: float = Field(default=600.0, gt=0)
    retry: RetryPolicy = RetryPolicy()
    priority: int = 0
    """Among tasks of the same mode, higher priorities are claimed first."""
    project: str | None = None
    """Project of the task. Runners whose key has a project claim tasks of that project."""


class QueuePaused(Event):
    """The queue was paused, for one project or for all: no rollouts can be claimed. Running ones continue."""

    type: Literal["queue-paused"] = "queue-paused"
    project: str | None = None
    """None: all projects."""
    reason: str = ""


class QueueResumed(Event):
    """The queue was resumed: rollouts can be claimed again."""

    type: Literal["queue-resumed"] = "queue-resumed"
    project: str | None = None
    """None ends the pause of all projects; pauses of single projects remain."""


class RolloutStarted(OfAttempt):
    """An attempt began, started by a runner or by the agent itself."""

    type: Literal["rollout-started"] = "rollout-started"
    task_id: str | None = None
    group_id: str
    group_size: int = Field(ge=1)
    runner: str | None = None
    project: str | None = None
    """The project that owns the rollout; None for work of no project."""
    begun_by: str | None = None
    """Id of the key that started the rollout by itself; None for a claimed one."""


class RolloutEnded(OfAttempt):
    """An attempt ended. Lists the model calls recorded for it.

    If `final` is False, the rollout will be retried and nothing of this attempt is ever trained.
    """

    type: Literal["rollout-ended"] = "rollout-ended"
    status: Literal["succeeded", "failed"]
    failure: Failure | None = None
    final: bool = True
    retry_at: AwareDatetime | None = None
    """When the next attempt may start; None if `final`."""
    task: Task | None = None
    group_id: str
    group_size: int = Field(ge=1)
    call_ids: list[str]
    """Ids of all model calls of the attempt that Kafka had acknowledged when it ended, sorted."""
    span_count: int | None = None
    """Number of spans that the client library exported for the attempt; None if unknown."""
    reward: float | None = None
    output: Json = None
    started_at: AwareDatetime


class RolloutSettled(OfAttempt):
    """The evidence of an attempt is complete, or the wait for the rest was given up. It consists of exactly these ids.

    The reward service publishes it once per attempt. Later stages, and replays, use exactly this evidence.
    """

    type: Literal["rollout-settled"] = "rollout-settled"
    call_ids: list[str]
    span_ids: list[str]
    complete: bool
    missing: list[str] = Field(default_factory=list)
    """Ids of announced calls that never arrived, and `spans:<n>` for n missing spans."""
