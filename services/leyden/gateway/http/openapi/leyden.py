"""`/leyden/v1`: tasks, rollouts, policies, keys."""

from leyden.gateway.http.bodies import (
    BeginBody,
    Body,
    CancelRolloutsBody,
    CancelTasksBody,
    ClaimBody,
    EndBody,
    PauseBody,
    TasksBody,
)
from leyden.gateway.http.keys import KeyBody
from leyden.gateway.http.openapi.operation import Operation, body_of, json

V1 = "/leyden/v1"
ATTEMPT = f"{V1}/rollouts/{{rollout}}/attempts/{{attempt}}"
ERROR = json("LeydenError")
WRITING = (400, 401, 403, 413, 503)
LOOKING = (401, 403, 503)


def _post(
    path: str,
    summary: str,
    reply: str,
    body: type[Body] | None = None,
    *,
    status: int = 200,
    more: tuple[int, ...] = (),
) -> Operation:
    errors = (*(LOOKING if body is None else WRITING), *more)
    content = None if body is None else body_of(body)
    return Operation("post", path, summary, "tasks", {status: json(reply)}, errors, ERROR, body=content)


def _get(path: str, summary: str, reply: str, tag: str = "looking") -> Operation:
    return Operation("get", path, summary, tag, {200: json(reply)}, LOOKING, ERROR)


OPERATIONS = [
    _post(f"{V1}/tasks", "Accept tasks; the same `task_id` again has the same answer.", "Tasks", TasksBody, status=201),
    _post(f"{V1}/rollouts/claim", "Take queued attempts.", "Claim", ClaimBody),
    _post(f"{V1}/rollouts", "Begin a rollout of one's own accord.", "Attempt", BeginBody, status=201),
    _post(f"{ATTEMPT}/heartbeat", "Keep an attempt alive.", "Lease", more=(409,)),
    _post(f"{ATTEMPT}/end", "End an attempt; the first end counts.", "End", EndBody, more=(409,)),
    _post(f"{V1}/tasks/cancel", "Call tasks off.", "CancelledTasks", CancelTasksBody, more=(404,)),
    _post(f"{V1}/rollouts/cancel", "Call rollouts off.", "CancelledRollouts", CancelRolloutsBody, more=(404,)),
    _post(f"{V1}/queue/pause", "Hand out no more attempts, of one project or of all.", "Paused", PauseBody),
    _post(f"{V1}/queue/resume", "Hand out attempts again.", "Paused", PauseBody),
    _get(f"{V1}/rollouts/{{rollout}}", "Where a rollout stands.", "Rollout"),
    _get(f"{V1}/policies", "Policies and their replicas.", "Policies"),
    _get(f"{V1}/queue", "How many attempts wait, run and have ended.", "Queue"),
    Operation(
        "post", f"{V1}/keys", "Make a key; its text is in this answer only.", "keys", {201: json("NewKey")},
        WRITING, ERROR, body=body_of(KeyBody),
    ),
    _get(f"{V1}/keys", "All keys, without their texts.", "Keys", "keys"),
    Operation(
        "delete", f"{V1}/keys/{{key_id}}", "Revoke a key.", "keys", {200: json("Key")}, (*LOOKING, 404), ERROR
    ),
]  # fmt: skip
