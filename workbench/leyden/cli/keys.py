"""`leyden keys`: creates, lists and revokes API keys through the gateway's admin API."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from leyden.cli.gateway_requests import request
from leyden.client.gateway import GatewayClient
from leyden.stack.errors import StackError

PATH = "/leyden/v1/keys"
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
HINTS = {403: " Use a key with scope admin, or one of LEYDEN_GATEWAY_API_KEYS."}


@dataclass(frozen=True)
class Wanted:
    """The key to create."""

    name: str
    scopes: Sequence[str]
    project: str | None = None
    models: Sequence[str] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    expires_at: datetime | None = None

    def body(self) -> dict[str, Any]:
        """The request body."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "expires_at"}
        return fields | {"expires_at": self.expires_at.isoformat() if self.expires_at else None}


class KeyAdmin:
    """The admin API of one gateway. Every method raises `StackError` with the gateway's message."""

    def __init__(self, gateway: GatewayClient) -> None:
        self._gateway = gateway

    def create(self, wanted: Wanted) -> dict[str, Any]:
        """The new key; its secret, `key`, is in this answer only. Never retried, so that one key is created."""
        return self._call("POST", PATH, wanted.body())

    def list(self) -> list[dict[str, Any]]:
        """All keys, expired and revoked ones included."""
        found: list[dict[str, Any]] = self._call("GET", PATH)["keys"]
        return found

    def revoke(self, key_id: str) -> dict[str, Any]:
        """The revoked key."""
        return self._call("DELETE", f"{PATH}/{quote(key_id, safe='')}")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        away = " Check the URL of the gateway."
        return request(self._gateway, method, path, body, retry_timeout_s=0.0, hints=HINTS, if_unavailable=away)


def expiry(text: str | None, now: datetime) -> datetime | None:
    """`30d` (or m, h, w) from `now`, or an ISO date or time, in UTC unless it names a zone. Raises StackError."""
    if text is None:
        return None
    if match := re.fullmatch(r"(\d{1,6})([mhdw])", text.strip()):
        return now + timedelta(**{UNITS[match[2]]: int(match[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise StackError(f"--expires {text}: use 30d, 12h, 4w, or a date such as 2027-01-31.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def row(key: dict[str, Any], now: datetime) -> list[str]:
    """One row of the list: id, name, state, scopes, project, models, limits."""
    limits = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "concurrency": "at a time"}
    told = [f"{key[name]} {unit}" for name, unit in limits.items() if key.get(name)]
    words = [" ".join(key.get("scopes") or ["-"]), key.get("project") or "-", " ".join(key.get("models") or ["all"])]
    return [key["key_id"], key["name"], _state(key, now), *words, ", ".join(told) or "none"]


def _state(key: dict[str, Any], now: datetime) -> str:
    if key.get("revoked_at"):
        return f"revoked {key['revoked_at'][:10]}"
    expires = key.get("expires_at")
    if not expires:
        return "active"
    return f"{'expired' if datetime.fromisoformat(expires) <= now else 'until'} {expires[:10]}"
