"""Bodies of `/leyden/v1` requests. Unknown fields are refused, so that a misspelt one is noticed."""

from typing import Annotated, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from leyden.events import Failure, RetryPolicy, Task
from leyden.events.base import Json, JsonObject, Reward, Timeout
from leyden.gateway.core.rollouts import EndReport, RolloutSpec, TaskRequest, in_project
from leyden.ids import MAX_ATTEMPTS, is_rollout_id

MAX_TASKS = 1000
MAX_SAMPLES = 1024
MAX_PRIORITY = 1000
MAX_REASON = 1000
Name = Field(min_length=1, max_length=256)


def _writable(value: Json) -> Json:
    """`value` if it can be written as JSON again, as it comes back in answers. Raises ValueError."""
    try:
        orjson.dumps(value)
    except TypeError as error:
        raise ValueError(f"not valid JSON for every reader: {error}") from error
    return value


Value = Annotated[Json, AfterValidator(_writable)]
"""A JSON value whose integers have at most 64 bits."""
Values = Annotated[JsonObject, AfterValidator(_writable)]


class Body(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class NoBody(Body):
    """An empty body."""


class RetryBody(RetryPolicy):
    """The retry policy of a task."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TaskBody(Body):
    """A task with `samples` rollouts."""

    task_id: str | None = Field(default=None, min_length=1, max_length=256)
    input: Value = None
    metadata: Values = Field(default_factory=dict)
    mode: Literal["train", "validation"] = "train"
    samples: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    group_id: str | None = Field(default=None, min_length=1, max_length=256)
    max_attempts: int = Field(default=3, ge=1, le=MAX_ATTEMPTS)
    timeout_s: Timeout = 600.0
    retry: RetryBody = RetryBody()
    priority: int = Field(default=0, ge=-MAX_PRIORITY, le=MAX_PRIORITY)

    def request(self, new_id: str, project: str | None) -> TaskRequest:
        """The core's form; `new_id` is the task id if none is given."""
        own = {"task_id": self.task_id or new_id, "project": project}
        return TaskRequest.model_validate(self.model_dump() | own)


class TasksBody(Body):
    """`POST /leyden/v1/tasks`."""

    tasks: list[TaskBody] = Field(min_length=1, max_length=MAX_TASKS)


class ClaimBody(Body):
    """`POST /leyden/v1/rollouts/claim`."""

    runner: str = Name
    limit: int = Field(default=1, ge=1, le=256)
    wait_s: float = Field(default=0.0, ge=0, le=30)


class OwnTask(Body):
    """The task of a rollout that an agent starts by itself."""

    task_id: str | None = Field(default=None, min_length=1, max_length=256)
    input: Value = None
    metadata: Values = Field(default_factory=dict)
    mode: Literal["train", "validation"] = "train"
    timeout_s: Timeout = 600.0


class BeginBody(Body):
    """`POST /leyden/v1/rollouts`."""

    task: OwnTask | None = None
    group_id: str | None = Field(default=None, min_length=1, max_length=256)
    group_size: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    runner: str | None = Field(default=None, min_length=1, max_length=256)
    rollout_id: str | None = None
    """Chosen by the caller, so that repeating the request starts nothing new."""

    @field_validator("rollout_id")
    @classmethod
    def _is_one(cls, rollout_id: str | None) -> str | None:
        if rollout_id is not None and not is_rollout_id(rollout_id):
            raise ValueError("a rollout id is 1e7de followed by 23 hex digits")
        return rollout_id

    def spec(self, new_id: str, project: str | None) -> RolloutSpec:
        """The core's form. A rollout without a group is a group of its own."""
        own = self.task or OwnTask()
        task_id = own.task_id or new_id
        task = Task(task_id=task_id, input=own.input, metadata=own.metadata, mode=own.mode)
        return RolloutSpec(
            task=task,
            group_id=in_project(project, self.group_id or new_id),
            group_size=self.group_size,
            timeout_s=own.timeout_s,
            project=project,
        )


class EndBody(Body):
    """`POST /leyden/v1/rollouts/{rollout_id}/attempts/{n}/end`."""

    status: Literal["succeeded", "failed"]
    failure: Failure | None = None
    reward: Reward | None = None
    output: Value = None
    span_count: int | None = Field(default=None, ge=0)

    def report(self) -> EndReport:
        """The core's form."""
        return EndReport.model_validate(self.model_dump())


class CancelTasksBody(Body):
    """`POST /leyden/v1/tasks/cancel`."""

    task_ids: list[str] = Field(min_length=1, max_length=100)
    reason: str = Field(default="", max_length=MAX_REASON)


class CancelRolloutsBody(Body):
    """`POST /leyden/v1/rollouts/cancel`."""

    rollout_ids: list[str] = Field(min_length=1, max_length=1000)
    reason: str = Field(default="", max_length=MAX_REASON)


class PauseBody(Body):
    """`POST /leyden/v1/queue/pause` and `/resume`."""

    project: str | None = Field(default=None, min_length=1, max_length=256)
    reason: str = Field(default="", max_length=MAX_REASON)
