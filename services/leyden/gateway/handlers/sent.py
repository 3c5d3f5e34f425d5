"""A call on its way to an engine, and how it is told that the engine refused it."""

from dataclasses import dataclass, field
from datetime import datetime

from leyden.gateway.core.faces import CHAT, Face
from leyden.gateway.core.request import Agent, Binding, JsonDict, Prepared
from leyden.gateway.core.routing import ModelName
from leyden.gateway.handlers.continuing import Turn


@dataclass(slots=True)
class Sent:
    """A call that was checked and is on its way. Nothing of it changes."""

    call_id: str
    route: str
    request: JsonDict
    binding: Binding
    agent: Agent
    prepared: Prepared
    name: ModelName
    started_at: datetime
    started: float
    """`time.perf_counter()` at the arrival."""
    face: Face = CHAT
    asked: JsonDict = field(default_factory=dict)
    """The caller's own body, before the face translated it to `request`."""
    upstream: str | None = None
    """The upstream that the call is passed on to; None for a policy's call."""
    turn: Turn | None = None
    """Its place in its attempt's conversation, where the engine is offered earlier tokens."""

    @property
    def owner(self) -> str:
        """The policy or the upstream: the label of metrics."""
        return self.upstream or self.name.policy


class Failed(Exception):  # noqa: N818
    """The engine answered with an error, which is passed on; the call is recorded by then."""

    def __init__(self, status: int, body: bytes, call_id: str, retry_after: str | None) -> None:
        super().__init__(f"engine answered {status}")
        self.status = status
        self.body = body
        self.call_id = call_id
        self.retry_after = retry_after
