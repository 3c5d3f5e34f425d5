"""Keys: which caller a bearer token is. Everything is compared in constant time, nothing is ever logged.

A per-rollout key names its attempt and is signed with the gateway's secret, so that any replica knows it without a
look-up: `lrk-<trace id>-<hmac>`.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from leyden.gateway.core.refusals import Refusal
from leyden.ids import AttemptRef, attempt_of_trace

KEY_MARK = "lrk"
TRACE_ID_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: `attempt` is the one attempt that a per-rollout key opens; None for an API key, which opens all."""

    attempt: AttemptRef | None = None

    def must_own(self, ref: AttemptRef) -> None:
        """Raise a 403 when the key belongs to another attempt than `ref`."""
        if self.attempt is not None and self.attempt != ref:
            raise Refusal(403, "wrong_rollout", "this key belongs to another rollout or attempt")

    def must_be_api_key(self) -> None:
        """Raise a 403 for a per-rollout key."""
        if self.attempt is not None:
            raise Refusal(403, "api_key_needed", "a per-rollout key opens only its own rollout; use an API key")


def rollout_key(secret: bytes, ref: AttemptRef) -> str:
    """The per-rollout key of an attempt; the same secret always gives the same key."""
    return f"{KEY_MARK}-{ref.trace_id}-{_signature(secret, ref.trace_id)}"


class KeyRing:
    """All keys that open this gateway."""

    def __init__(self, api_keys: Iterable[str], secret: bytes) -> None:
        self._digests = [_digest(key) for key in api_keys]
        self._secret = secret

    def caller(self, authorization: str | None) -> Caller:
        """Who sent this `Authorization` header; raises a 401 `Refusal` for nobody that is known."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and (token := token.strip()):
            if ref := self._attempt_of(token):
                return Caller(ref)
            shown = _digest(token)
            # All are compared, so that the time says nothing about which one was near.
            if sum([hmac.compare_digest(shown, digest) for digest in self._digests]):
                return Caller()
        raise Refusal(401, "invalid_api_key", "no valid key: send `Authorization: Bearer <key>`")

    def _attempt_of(self, token: str) -> AttemptRef | None:
        mark, _, rest = token.partition("-")
        trace_id, _, signature = rest.partition("-")
        if mark != KEY_MARK or len(trace_id) != TRACE_ID_DIGITS:
            return None
        genuine = hmac.compare_digest(_signature(self._secret, trace_id).encode(), signature.encode())
        return attempt_of_trace(trace_id) if genuine else None


def _signature(secret: bytes, trace_id: str) -> str:
    return hmac.new(secret, f"{KEY_MARK}:{trace_id}".encode(), hashlib.sha256).hexdigest()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
