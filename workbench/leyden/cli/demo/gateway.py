"""The demo's requests to the gateway."""

from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Queue:
    """Numbers of rollouts by state."""

    queued: int
    running: int
    ended: int


class GatewayClient:
    """Enqueues tasks and reads state. Methods raise `httpx.HTTPError`."""

    def __init__(self, url: str, api_key: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {api_key}"}, timeout=30.0)

    async def enqueue(self, tasks: list[dict[str, Any]]) -> None:
        """Enqueue tasks; repeating a task id changes nothing."""
        (await self._http.post("/leyden/v1/tasks", json={"tasks": tasks})).raise_for_status()

    async def live_version(self, policy: str) -> int | None:
        """The version that every replica of `policy` serves, or None."""
        answer = (await self._http.get("/leyden/v1/policies")).raise_for_status().json()
        versions = [entry["live_version"] for entry in answer["policies"] if entry["policy"] == policy]
        return versions[0] if versions else None

    async def queue(self) -> Queue:
        """Numbers of rollouts by state."""
        answer = (await self._http.get("/leyden/v1/queue")).raise_for_status().json()
        return Queue(answer["queued"], answer["running"], answer["ended"])

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
