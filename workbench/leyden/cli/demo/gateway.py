"""What the demo asks of the gateway, over HTTP as any user would."""

from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Queue:
    """How many rollouts are where."""

    queued: int
    running: int
    ended: int


class GatewayClient:
    """Tasks in, state out. Every call raises `httpx.HTTPError` when the gateway does not answer well."""

    def __init__(self, url: str, api_key: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {api_key}"}, timeout=30.0)

    async def enqueue(self, tasks: list[dict[str, Any]]) -> None:
        """Enqueue tasks; the same task id again changes nothing."""
        (await self._http.post("/leyden/v1/tasks", json={"tasks": tasks})).raise_for_status()

    async def live_version(self, policy: str) -> int | None:
        """The version that every replica of `policy` serves, or None while there is none."""
        answer = (await self._http.get("/leyden/v1/policies")).raise_for_status().json()
        versions = [entry["live_version"] for entry in answer["policies"] if entry["policy"] == policy]
        return versions[0] if versions else None

    async def queue(self) -> Queue:
        """How many rollouts wait, run and have ended."""
        answer = (await self._http.get("/leyden/v1/queue")).raise_for_status().json()
        return Queue(answer["queued"], answer["running"], answer["ended"])

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()
