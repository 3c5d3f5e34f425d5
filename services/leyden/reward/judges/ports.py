"""What judging needs of the world. Every method of a store raises `Retry` when it is away."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from leyden.reward.core.judging import ChatRequest


class JudgeQueue(Protocol):
    """What waits for a judge, each with the time from which it may be taken. Survives any process."""

    async def add(self, jobs: Mapping[str, datetime]) -> None:
        """Have these done; the time of one that is there already stays as it is."""
        ...

    async def hurry(self, jobs: Sequence[str], at: datetime) -> None:
        """Have those of `jobs` that are there done at `at`, if not before; a claim on them ends with that."""
        ...

    async def claim(self, now: datetime, until: datetime, limit: int) -> list[str]:
        """Take at most `limit` jobs whose time has come. Nobody else gets them until `until`."""
        ...

    async def extend(self, claims: Mapping[str, datetime], until: datetime) -> list[str]:
        """Move the end of claims (job → end so far) to `until`; returns those that still held."""
        ...

    async def done(self, claims: Mapping[str, datetime]) -> None:
        """Forget the jobs whose claim (job → its end) still holds; one that was hurried since stays."""
        ...

    async def size(self) -> int:
        """How many there are."""
        ...


class GroupStore(Protocol):
    """Members of groups that are to be ranked, and each group's one answer. `group` names judge, settings and group."""

    async def join(self, group: str, rollout_id: str, member: bytes) -> tuple[int, bool]:
        """Keep a member (its first bytes stay); returns how many there are, and whether the group has its answer."""
        ...

    async def load(self, group: str) -> tuple[list[bytes], bytes | None]:
        """The members, and the answer if there is one."""
        ...

    async def answer(self, group: str, value: bytes) -> bytes:
        """Keep the answer unless there is one; returns the one that counts."""
        ...


class AnswerCache(Protocol):
    """Answers that were paid for, by the content of the request."""

    async def get(self, key: str) -> str | None:
        """The answer, if it is there."""
        ...

    async def put(self, key: str, text: str) -> None:
        """Keep an answer for a while."""
        ...


class ChatEndpoint(Protocol):
    """A model behind an OpenAI-compatible API."""

    async def ask(self, request: ChatRequest) -> str:
        """The text of the answer, after whatever retries; raises `RuleFailed` (endpoint, timeout) for good."""
        ...
