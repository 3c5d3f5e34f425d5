"""A training's requests to the gateway."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from leyden.client.gateway import message_of
from leyden.reading.model_wait import CALLS_PATH, ModelWait, model_wait
from leyden.training.tasks import batches


@dataclass(frozen=True)
class Queue:
    """Numbers of rollouts by state."""

    queued: int
    running: int
    ended: int


@dataclass(frozen=True)
class EnqueuedTask:
    """A task as the gateway has it."""

    task_id: str
    group_id: str
    rollout_ids: tuple[str, ...]


def failure_text(error: httpx.HTTPError) -> str:
    """What failed: the status and message of the gateway's answer, or that it gave none."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"the gateway answered {error.response.status_code}: {message_of(error.response)}"
    return f"the gateway does not answer ({type(error).__name__})"


class GatewayClient:
    """Enqueues tasks and reads state. Methods raise `httpx.HTTPError`."""

    def __init__(self, url: str, api_key: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        headers = {"authorization": f"Bearer {api_key}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=30.0, transport=transport)

    async def enqueue(self, tasks: Iterable[dict[str, Any]]) -> list[EnqueuedTask]:
        """Enqueue tasks; repeating a task id changes nothing."""
        found = []
        for batch in batches(tasks):
            answer = (await self._http.post("/leyden/v1/tasks", json={"tasks": batch})).raise_for_status().json()
            found += [EnqueuedTask(t["task_id"], t["group_id"], tuple(t["rollout_ids"])) for t in answer["tasks"]]
        return found

    async def live_version(self, policy: str) -> int | None:
        """The version that every replica of `policy` serves, or None."""
        answer = (await self._http.get("/leyden/v1/policies")).raise_for_status().json()
        versions = [entry["live_version"] for entry in answer["policies"] if entry["policy"] == policy]
        return versions[0] if versions else None

    async def queue(self) -> Queue:
        """Numbers of rollouts by state."""
        answer = (await self._http.get("/leyden/v1/queue")).raise_for_status().json()
        return Queue(answer["queued"], answer["running"], answer["ended"])

    async def model_wait(self) -> ModelWait:
        """The model calls that wait for an answer."""
        return model_wait((await self._http.get(CALLS_PATH)).raise_for_status().json()["calls"])

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
