"""Keys: the caller of a bearer token and what it may do. Secrets are compared in constant time and never logged.

- An **API key** `lk-<key id>-<secret>` is an event in `keys.v1`, which has only its SHA-256. A slow hash protects
  guessable passwords; it adds nothing for 256 random bits, and every call would pay for it.
- A **bootstrap key** comes from the settings and may do everything; it creates the first API key.
- A **per-rollout key** `lrk-<trace id>[-<key id>]-<hmac>` is valid for one attempt. It is signed with the gateway's
  secret, so any replica can verify it without a look-up. The key id is that of the key that claimed the attempt: the
  per-rollout key has its project, models and limits, and is revoked with it.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from urllib.parse import unquote

from leyden.events import KeyCreated, KeyLimits, KeyRevoked
from leyden.gateway.core.refusals import Refusal
from leyden.ids import AttemptRef, attempt_of_trace

API_MARK = "lk"
ROLLOUT_MARK = "lrk"
TRACE_ID_DIGITS = 32
KEY_ID_BYTES = 6
SECRET_BYTES = 32
UNLIMITED = KeyLimits()
MAX_CREDENTIALS = 8
"""Headers of one request that are tried."""
MAX_GENUINE = 4096
"""Number of verified per-rollout keys in the cache. The key that they depend on is checked each time."""


class Scope(StrEnum):
    """What a key may do; each scope includes the ones above it."""

    AGENT = "agent"
    """Model API, OTLP, and rollouts that the key started."""
    RUNNER = "runner"
    """Tasks, claims, and heartbeats and ends of any attempt."""
    ADMIN = "admin"
    """Keys, and pausing the queue."""


INCLUDED = {
    Scope.AGENT: frozenset({Scope.AGENT}),
    Scope.RUNNER: frozenset({Scope.AGENT, Scope.RUNNER}),
    Scope.ADMIN: frozenset(Scope),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller. The default is a bootstrap key, which may do everything and has no project."""

    attempt: AttemptRef | None = None
    """The attempt of a per-rollout key; None for an API key."""
    scopes: frozenset[Scope] = frozenset(Scope)
    key_id: str | None = None
    """The API key's id; for a per-rollout key, that of the key that claimed its attempt."""
    project: str | None = None
    models: tuple[str, ...] = ()
    """Patterns of allowed models; empty: all."""
    limits: KeyLimits = UNLIMITED
    bootstrap: str | None = field(default=None, repr=False, compare=False)
    """Tells bootstrap keys apart; None for other keys."""

    def must(self, scope: Scope) -> None:
        """Raise a 403 if the key lacks `scope`."""
        if scope is Scope.AGENT and scope in self.scopes:
            return
        self.must_be_unbound()
        if scope in self.scopes:
            return
        has = ", ".join(sorted(self.scopes))
        raise Refusal(403, "scope_needed", f"this needs a key with scope `{scope}`; the key's is {has}")

    def must_be_unbound(self) -> None:
        """Raise a 403 for a per-rollout key."""
        if self.attempt is not None:
            raise _bound()

    def must_share(self, project: str | None) -> None:
        """Raise a 403 if the key is of a project other than `project`."""
        if self.project is not None and project != self.project:
            raise Refusal(403, "wrong_project", f"this key is of project {self.project!r}")

    def must_own(self, ref: AttemptRef) -> None:
        """Raise a 403 if the key belongs to an attempt other than `ref`."""
        if self.attempt is not None and self.attempt != ref:
            raise Refusal(403, "wrong_rollout", "this key belongs to another rollout or attempt")

    def may_use(self, model: str) -> bool:
        """Whether the key may call `model`; patterns match policies or versions."""
        if not self.models:
            return True
        names = {model, model.rpartition("@")[0] or model}
        return any(fnmatchcase(name, pattern) for pattern in self.models for name in names)

    def must_use(self, model: object) -> None:
        """Raise a 403 that lists the allowed models if `model` is not one of them."""
        if isinstance(model, str) and not self.may_use(model):
            allowed = ", ".join(self.models)
            message = f"this key may not call `{model[:128]}`; it may call: {allowed}"
            raise Refusal(403, "model_not_allowed", message, param="model")


def _bound() -> Refusal:
    return Refusal(403, "api_key_needed", "a per-rollout key opens only its own rollout; use an API key")


AGENT_SCOPES = INCLUDED[Scope.AGENT]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key, with its secret."""

    key_id: str
    text: str = field(repr=False)

    @property
    def digest(self) -> str:
        """The digest that is stored."""
        return _digest(self.text).hex()


def new_key(random_id: bytes, random_secret: bytes) -> NewKey:
    """The key made of `KEY_ID_BYTES` and `SECRET_BYTES` random bytes."""
    if len(random_id) != KEY_ID_BYTES or len(random_secret) != SECRET_BYTES:
        raise ValueError("a key is made of 6 random bytes of id and 32 of secret")
    secret = base64.urlsafe_b64encode(random_secret).decode().rstrip("=")
    return NewKey(random_id.hex(), f"{API_MARK}-{random_id.hex()}-{secret}")


def rollout_key(secret: bytes, ref: AttemptRef, key_id: str | None = None) -> str:
    """The per-rollout key of an attempt claimed by `key_id`; deterministic for a secret."""
    named = ref.trace_id if key_id is None else f"{ref.trace_id}-{key_id}"
    return f"{ROLLOUT_MARK}-{named}-{_signature(secret, named)}"


@dataclass(frozen=True, slots=True)
class KeyState:
    """One API key, as the API shows it."""

    key_id: str
    name: str
    created: KeyCreated | None
    """None for a key of which only the revocation is in the log."""
    revoked_at: datetime | None = None

    def is_of(self, project: str | None) -> bool:
        """Whether the key is of a project; for None, which stands for all, true."""
        return project is None or (self.created is not None and self.created.project == project)


class KeyRing:
    """All valid keys. `complete` once keys.v1 was read to the end that it had at the start."""

    def __init__(self, bootstrap_keys: Iterable[str], secret: bytes, now: Callable[[], datetime]) -> None:
        digests = [_digest(key) for key in bootstrap_keys]
        self._bootstrap = [(one, Caller(bootstrap=_signature(secret, one.hex())[:16])) for one in digests]
        self._secret = secret
        self._now = now
        self._states: dict[str, KeyState] = {}
        self._callers: dict[str, tuple[bytes, Caller]] = {}
        self._genuine: dict[str, tuple[AttemptRef, str]] = {}
        self.complete: Callable[[], bool] = lambda: True

    def note_created(self, event: KeyCreated) -> None:
        """Add a key, unless it was revoked. Raises ValueError, and adds nothing, if the digest is not hexadecimal."""
        digest = bytes.fromhex(event.digest)
        known = self._states.get(event.key_id)
        revoked_at = known.revoked_at if known else None
        self._states[event.key_id] = KeyState(event.key_id, event.name, event, revoked_at)
        if revoked_at is None:
            scopes = frozenset[Scope]().union(*(INCLUDED[Scope(scope)] for scope in event.scopes))
            caller = Caller(
                attempt=None,
                scopes=scopes,
                key_id=event.key_id,
                project=event.project,
                models=tuple(event.models),
                limits=event.limits,
            )
            self._callers[event.key_id] = (digest, caller)

    def note_revoked(self, event: KeyRevoked) -> None:
        """Revoke a key, and with it all per-rollout keys that it claimed."""
        known = self._states.get(event.key_id)
        first = known.revoked_at if known and known.revoked_at else event.event_time
        self._states[event.key_id] = KeyState(event.key_id, event.name, known.created if known else None, first)
        self._callers.pop(event.key_id, None)

    def states(self) -> Sequence[KeyState]:
        """All known keys, by name and id."""
        return sorted(self._states.values(), key=lambda state: (state.name, state.key_id))

    def find(self, key_id: str) -> KeyState | None:
        """One key."""
        return self._states.get(key_id)

    def limits_of(self, key_id: str | None) -> KeyLimits:
        """The limits of a valid key."""
        known = self._callers.get(key_id) if key_id else None
        return known[1].limits if known else UNLIMITED

    def caller(self, *credentials: str) -> Caller:
        """The caller of the first valid one of these `Authorization` headers. Raises a 401 `Refusal` if none is valid.

        Clients send several when a setting for another service is left in their environment. They may be
        percent-encoded: OpenTelemetry encodes header values in environment variables, and many programs send them as
        they are.
        """
        refused: Refusal | None = None
        for header in credentials[:MAX_CREDENTIALS]:
            try:
                found = self._known(header) or (self._known(unquote(header)) if "%" in header else None)
            except Refusal as refusal:
                refused = refused or refusal
                continue
            if found is not None:
                return found
        raise refused or _not_known(credentials)

    def _known(self, header: str) -> Caller | None:
        """The caller of a header as it is."""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not (token := token.strip()):
            return None
        mark, _, rest = token.partition("-")
        if mark == ROLLOUT_MARK and (found := self._of_rollout(rest)):
            return found
        shown = _digest(token)
        if mark == API_MARK and (found := self._of_key(rest.partition("-")[0], shown)):
            return found
        # All are compared, so that the time reveals nothing about them.
        equal = [caller for digest, caller in self._bootstrap if hmac.compare_digest(shown, digest)]
        return equal[0] if equal else None

    def _of_key(self, key_id: str, shown: bytes) -> Caller | None:
        known = self._callers.get(key_id)
        if known is None:
            self._must_be_complete(key_id)
            self._must_not_be_revoked(key_id, shown)
            return None
        digest, caller = known
        return self._unexpired(caller) if hmac.compare_digest(shown, digest) else None

    def _of_rollout(self, rest: str) -> Caller | None:
        found = self._genuine.get(rest) or self._verified(rest)
        if found is None:
            return None
        attempt, key_id = found
        if not key_id:
            return Caller(attempt=attempt, scopes=AGENT_SCOPES)
        known = self._callers.get(key_id)
        if known is None:
            self._must_be_complete(key_id)
            self._must_not_be_revoked(key_id, None)
            return None
        issuer = self._unexpired(known[1])
        return Caller(
            attempt=attempt,
            scopes=AGENT_SCOPES,
            key_id=key_id,
            project=issuer.project,
            models=issuer.models,
            limits=issuer.limits,
        )

    def _verified(self, rest: str) -> tuple[AttemptRef, str] | None:
        """The attempt and the issuing key's id of a verified per-rollout key; cached for an agent's many calls."""
        named, _, signature = rest.rpartition("-")
        if not hmac.compare_digest(_signature(self._secret, named).encode(), signature.encode()):
            return None
        trace_id, _, key_id = named.partition("-")
        attempt = attempt_of_trace(trace_id) if len(trace_id) == TRACE_ID_DIGITS else None
        if attempt is None:
            return None
        if len(self._genuine) >= MAX_GENUINE:
            self._genuine.clear()
        self._genuine[rest] = (attempt, key_id)
        return attempt, key_id

    def _unexpired(self, caller: Caller) -> Caller:
        created = self._states[caller.key_id].created if caller.key_id else None
        if created and created.expires_at and created.expires_at <= self._now():
            raise Refusal(
                401, "expired_api_key", f"the key {caller.key_id} has expired; use another (`leyden keys create`)"
            )
        return caller

    def _must_not_be_revoked(self, key_id: str, shown: bytes | None) -> None:
        """Raise a 401 that says so. `shown`: digest of what was sent, which must be the key's while that is known."""
        state = self._states.get(key_id)
        if state is None or state.revoked_at is None:
            return
        if shown is None or state.created is None or hmac.compare_digest(shown, bytes.fromhex(state.created.digest)):
            raise Refusal(401, "invalid_api_key", f"the key {key_id} was revoked; use another (`leyden keys create`)")

    def _must_be_complete(self, key_id: str) -> None:
        """503 while the keys are being read, as the key may be among those not read yet; else 401."""
        if key_id not in self._states and not self.complete():
            raise Refusal(503, "starting", "the gateway is still reading its keys", retry_after_s=1.0)


def _not_known(credentials: Sequence[str]) -> Refusal:
    """The 401 for credentials of which none is a known key."""
    if not any(header.strip() for header in credentials):
        message = "no valid key: none was sent; send `Authorization: Bearer <key>`"
    elif not any(unquote(header).lower().startswith("bearer ") for header in credentials):
        message = "no valid key: the header must be `Authorization: Bearer <key>`"
    else:
        message = "no valid key: this gateway does not know the key that was sent; `leyden keys list` shows its keys"
    return Refusal(401, "invalid_api_key", message)


def owner_of(secret: bytes, project: str) -> str:
    """A project's part of the ids of its rollouts, which nobody else can know."""
    return _signature(secret, f"project:{project}")


def _signature(secret: bytes, named: str) -> str:
    return hmac.digest(secret, f"{ROLLOUT_MARK}:{named}".encode(), "sha256").hex()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Level:
    """What a key has left after one call was counted. Each bucket fills evenly within a minute, up to its limit."""

    admitted: bool
    requests: float = 0.0
    tokens: float = 0.0
    """Below zero if calls used more than was left, as a reply's length is not known beforehand."""


def limit_headers(limits: KeyLimits, level: Level) -> dict[str, str]:
    """The `x-ratelimit-…` headers of OpenAI's API."""
    headers: dict[str, str] = {}
    for what, limit, left in _buckets(limits, level):
        headers[f"x-ratelimit-limit-{what}"] = str(limit)
        headers[f"x-ratelimit-remaining-{what}"] = str(max(0, int(left)))
        headers[f"x-ratelimit-reset-{what}"] = _duration((limit - left) * MINUTE_S / limit)
    return headers


def rate_limited(limits: KeyLimits, level: Level) -> Refusal:
    """The 429 of a call that was not admitted, with the time until the next one."""
    waits = {what: max(0.0, (1 - left) * MINUTE_S / limit) for what, limit, left in _buckets(limits, level)}
    what = max(waits, key=lambda name: waits[name])
    limit = limits.requests_per_minute if what == "requests" else limits.tokens_per_minute
    message = f"this key may use {limit} {what} a minute; try again in {_duration(waits[what])}"
    return Refusal(429, "rate_limit_exceeded", message, retry_after_s=max(1.0, waits[what]))


def _buckets(limits: KeyLimits, level: Level) -> list[tuple[str, int, float]]:
    both = (
        ("requests", limits.requests_per_minute, level.requests),
        ("tokens", limits.tokens_per_minute, level.tokens),
    )
    return [(what, limit, left) for what, limit, left in both if limit is not None]


def _duration(seconds: float) -> str:
    """A duration in OpenAI's format: `0s`, `120ms`, `6m0s`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms" if seconds > 0 else "0s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
