"""A gateway's task queue in memory, and the rows that tests of `leyden enqueue` put into it."""

import json
from typing import Any

import httpx

from leyden.cli.gateway_requests import TaskQueue
from leyden.client.gateway import GatewayClient
from leyden.gateway.http.bodies import TasksBody
from leyden.training.task_rows import Source
from leyden.training.tasks import TaskSource

ROWS = [{"question": f"{n} + 1?", "answer": n + 1, "level": "easy"} for n in range(5)]
SHARED = {"samples": 2, "mode": "validation"}


class TaskGateway:
    """A gateway that keeps tasks by id, and is away when told to be."""

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.requests: list[int] = []
        self.away = 0
        self.paths: list[tuple[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            self.away -= 1
            return httpx.Response(503, headers={"retry-after": "0"}, json={"error": {"message": "Kafka is slow"}})
        body = json.loads(request.content)
        self.paths.append((request.url.path, body))
        TasksBody.model_validate(body)
        self.requests.append(len(body["tasks"]))
        answers = []
        for task in body["tasks"]:
            new = task["task_id"] not in self.tasks
            kept = self.tasks.setdefault(task["task_id"], task)
            answers.append({"rollout_ids": ["r"] * kept.get("samples", 1), "new": new})
        return httpx.Response(201, json={"tasks": answers})


def queue_of(gateway: TaskGateway, retry_timeout_s: float = 5.0) -> TaskQueue:
    return TaskQueue(GatewayClient("http://g", "k", transport=httpx.MockTransport(gateway)), retry_timeout_s)


def plan(source: str, **changes: Any) -> TaskSource:
    chosen = {"input_columns": ["question"], "metadata_columns": ["answer"], "shared": SHARED}
    return TaskSource(Source(source), **(chosen | changes))


def quiet(_: str) -> None:
    pass
