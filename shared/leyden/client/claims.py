"""A claimed attempt: what the gateway hands to whoever runs an agent. Data only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leyden.client.errors import GatewayError


@dataclass(frozen=True)
class Claim:
    """One attempt at one rollout, to be run by this process. An agent needs `input`, `base_url` and `api_key`."""

    rollout_id: str
    attempt: int
    trace_id: str
    traceparent: str
    base_url: str
    """OpenAI base URL; calls made through it are bound to this attempt."""
    api_key: str
    """Key that works for this attempt alone, and binds calls to it too."""
    input: Any = None
    task_id: str | None = None
    group_id: str | None = None
    mode: str = "train"
    timeout_s: float | None = None
    """Seconds from the claim; None is no limit."""
    lease_s: float = 30.0
    """Without a heartbeat for so long, the gateway gives the attempt up."""
    recorded: bool = True
    """False when the gateway could not be reached and the agent runs unobserved."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Claim":
        """Read the gateway's answer; unknown fields are ignored. Raises `GatewayError` when one is lacking."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        try:
            return cls(**known)
        except TypeError as error:
            raise GatewayError(f"the gateway's rollout cannot be read: {error}") from error
