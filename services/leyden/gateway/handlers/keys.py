"""API keys: created, revoked, and read from keys.v1."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import get_args

from leyden.clock import Clock
from leyden.events import Event, KeyCreated, KeyLimits, KeyRevoked
from leyden.events.codec import KEYS
from leyden.events.keys import ScopeName
from leyden.gateway.core.keys import KeyRing, KeyState, NewKey
from leyden.gateway.core.refusals import Refusal
from leyden.ids import derive
from leyden.kafka import Delivered, Outgoing, Poison, Publisher

PRODUCER = "gateway"
SCOPES: tuple[ScopeName, ...] = get_args(ScopeName)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """The fields of a new key."""

    name: str
    scopes: Sequence[ScopeName] = ("agent",)
    project: str | None = None
    models: Sequence[str] = ()
    limits: KeyLimits = field(default_factory=KeyLimits)
    expires_at: datetime | None = None


class KeysHandler:
    """Updates this replica's keys from keys.v1; idempotent."""

    def __init__(self, ring: KeyRing, publisher: Publisher, clock: Clock, mint: Callable[[], NewKey]) -> None:
        self._ring = ring
        self._publisher = publisher
        self._clock = clock
        self._mint = mint
        self.read = asyncio.Event()
        """Set once keys.v1 has been read to its end at the start."""

    async def on_keys(self, batch: Sequence[Delivered[Event]]) -> None:
        """Add created keys and remove revoked ones."""
        for delivered in batch:
            match delivered.event:
                case KeyCreated() as created:
                    try:
                        self._ring.note_created(created)
                    except ValueError as error:
                        raise Poison(f"the digest of key {created.key_id[:64]!r}: {error}", delivered) from error
                case KeyRevoked() as revoked:
                    self._ring.note_revoked(revoked)
                case _:
                    pass

    async def create(self, request: KeyRequest) -> tuple[NewKey, KeyCreated]:
        """Create a key; returns when Kafka has it. It is valid here at once, elsewhere when the replica has read it."""
        now = self._clock.now()
        if request.expires_at is not None and request.expires_at <= now:
            raise Refusal(400, "invalid_request", "expires_at is in the past", param="expires_at")
        key = self._mint()
        if self._ring.find(key.key_id):
            raise Refusal(503, "unavailable", "the key's random id is taken; try again", retry_after_s=1.0)
        event = KeyCreated(
            event_id=derive("key-created", key.key_id),
            event_time=now,
            producer=PRODUCER,
            key_id=key.key_id,
            name=request.name,
            digest=key.digest,
            scopes=[scope for scope in SCOPES if scope in request.scopes],
            project=request.project,
            models=list(request.models),
            limits=request.limits,
            expires_at=request.expires_at,
        )
        await self._publisher.publish_all([Outgoing(KEYS, key.key_id, event)])
        self._ring.note_created(event)
        return key, event

    async def revoke(self, key_id: str, project: str | None = None) -> KeyState:
        """Revoke a key; returns when Kafka has it. Idempotent. Raises a 404 for a key that is unknown in the project.

        `project` is the caller's; None: any.
        """
        state = self._ring.find(key_id)
        if state is None or not state.is_of(project):
            raise Refusal(404, "key_not_found", f"no key {key_id[:64]!r}")
        if state.revoked_at is not None:
            return state
        event = KeyRevoked(
            event_id=derive("key-revoked", key_id),
            event_time=self._clock.now(),
            producer=PRODUCER,
            key_id=key_id,
            name=state.name,
        )
        await self._publisher.publish_all([Outgoing(KEYS, key_id, event)])
        self._ring.note_revoked(event)
        return KeyState(key_id, state.name, state.created, event.event_time)
