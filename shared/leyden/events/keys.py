"""Which keys open the gateway: `keys.v1` (compacted, key = key id). A key itself is in no event, only its digest."""

from typing import Literal

from pydantic import AwareDatetime, Field

from leyden.events.base import Event, Record

ScopeName = Literal["agent", "runner", "admin"]


class KeyLimits(Record):
    """How much a key may do; None: no limit."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    """Model calls, over all replicas of the gateway."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens of model calls, over all replicas."""
    concurrency: int | None = Field(default=None, ge=1)
    """Model calls at a time in one replica."""


class KeyCreated(Event):
    """A key opens the gateway from now on. Key `<key id>`."""

    type: Literal["key-created"] = "key-created"
    key_id: str
    """The first part of the key: it names it everywhere, and opens nothing."""
    name: str
    digest: str
    """SHA-256 of the key, hex. The key is 256 random bits, so a slow hash would protect nothing more."""
    scopes: list[ScopeName]
    project: str | None = None
    """Recorded on what the key brings in: calls, spans."""
    models: list[str] = Field(default_factory=list)
    """Patterns of the models that it may call, as in a shell (`policy*`); empty: all."""
    limits: KeyLimits = Field(default_factory=KeyLimits)
    expires_at: AwareDatetime | None = None


class KeyRevoked(Event):
    """A key opens nothing any more, for ever. Key `<key id>`: compaction leaves this of it."""

    type: Literal["key-revoked"] = "key-revoked"
    key_id: str
    name: str
