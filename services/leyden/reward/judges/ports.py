"""Ports of judging. Every method of a store raises `Retry` if the store is unavailable."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from leyden.reward.core.judging import ChatRequest


class JudgeQueue(Protocol):
    """A durable queue of judging jobs, each with the time at which it is due."""

    async def add(self, jobs: Mapping[str, datetime]) -> None:
        """Add jobs with their due times. The time of a job already present is not changed."""
        ...

    async def hurry(self, jobs: Sequence[str], at: datetime) -> None:
        """Make those of `jobs` that are present due at `at`, unless they are due earlier. Ends claims on them."""
        ...

    async def claim(self, now: datetime, until: datetime, limit: int) -> list[str]:
        """Claim at most `limit` due jobs. No other replica can claim them until `until`."""
        ...

    async def extend(self, claims: Mapping[str, datetime], until: datetime) -> list[str]:
        """Extend claims (job → current end) to `until`. Returns the jobs whose claims were still valid."""
        ...

    async def done(self, claims: Mapping[str, datetime]) -> None:
        """Remove the jobs whose claims (job → end) are still valid. A job made due by `hurry` since then stays."""
        ...

    async def size(self) -> int:
        """Number of jobs."""
        ...


class GroupStore(Protocol):
    """Members of groups to rank, and each group's result. `group` is the key made by `group_job`."""

    async def join(self, group: str, rollout_id: str, member: bytes) -> tuple[int, bool]:
        """Add a member unless present. Returns the number of members, and whether the group has a result."""
        ...

    async def load(self, group: str) -> tuple[list[bytes], bytes | None]:
        """The members, and the result if there is one."""
        ...

    async def answer(self, group: str, value: bytes) -> bytes:
        """Store the result unless there is one. Returns the stored one."""
        ...


class AnswerCache(Protocol):
    """Cache of responses by `ChatRequest.key`."""

    async def get(self, key: str) -> str | None:
        """The cached response, or None."""
        ...

    async def put(self, key: str, text: str) -> None:
        """Cache a response; it expires."""
        ...


class ChatEndpoint(Protocol):
    """A model behind an OpenAI-compatible API."""

    async def ask(self, request: ChatRequest) -> str:
        """The text of the response. Raises `RuleFailed` (endpoint, timeout) after all retries."""
        ...
