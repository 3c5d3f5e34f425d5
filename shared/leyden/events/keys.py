"""Events of `keys.v1` (compacted by key id): API keys of the gateway. Events hold only the digest of a key."""

from typing import Literal

from pydantic import AwareDatetime, Field

from leyden.events.base import Event, Record

ScopeName = Literal["agent", "runner", "admin"]


class KeyLimits(Record):
    """Limits of a key; None: no limit."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    """Model calls, summed over all replicas of the gateway."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens of model calls, summed over all replicas."""
    concurrency: int | None = Field(default=None, ge=1)
    """Concurrent model calls in one replica."""


class KeyCreated(Event):
    """An API key was created. Record key: `<key id>`."""

    type: Literal["key-created"] = "key-created"
    key_id: str
    """First part of the key. Identifies the key but grants no access."""
    name: str
    digest: str
    """SHA-256 of the key, hex. A slow hash is not needed, because keys have 256 random bits."""
    scopes: list[ScopeName]
    project: str | None = None
    """Recorded with all calls and spans sent with this key."""
    models: list[str] = Field(default_factory=list)
    """Shell patterns of the models that the key may call (`policy*`); empty: all models."""
    limits: KeyLimits = Field(default_factory=KeyLimits)
    expires_at: AwareDatetime | None = None


class KeyRevoked(Event):
    """An API key was revoked, permanently. Record key: `<key id>`, so compaction keeps only this event of the key."""

    type: Literal["key-revoked"] = "key-revoked"
    key_id: str
    name: str
