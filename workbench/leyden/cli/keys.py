"""`leyden keys`: API keys made, listed and revoked through the gateway's admin API."""

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
HINTS = {403: " Keys are made with a key of scope admin, or one of LEYDEN_GATEWAY_API_KEYS."}


@dataclass(frozen=True)
class Wanted:
    """The key that shall be made."""

    name: str
    scopes: Sequence[str]
    project: str | None = None
    models: Sequence[str] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    expires_at: datetime | None = None

    def body(self) -> dict[str, Any]:
        """As the gateway takes it."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "expires_at"}
        return fields | {"expires_at": self.expires_at.isoformat() if self.expires_at else None}


class KeyAdmin:
    """The admin API of one gateway. Every method raises `StackError` with what the gateway said."""

    def __init__(self, gateway: GatewayClient) -> None:
        self._gateway = gateway

    def create(self, wanted: Wanted) -> dict[str, Any]:
        """The new key, with its text as `key`: the only time that it is told. Never tried twice: one key is made."""
        return self._call("POST", PATH, wanted.body())

    def list(self) -> list[dict[str, Any]]:
        """Every key that there is or was."""
        found: list[dict[str, Any]] = self._call("GET", PATH)["keys"]
        return found

    def revoke(self, key_id: str) -> dict[str, Any]:
        """The key, revoked."""
        return self._call("DELETE", f"{PATH}/{quote(key_id, safe='')}")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        away = " Is the address right?"
        return request(self._gateway, method, path, body, retry_timeout_s=0.0, hints=HINTS, if_unavailable=away)


def expiry(text: str | None, now: datetime) -> datetime | None:
    """`30d` (also m, h, w) from `now` on, or an ISO date or time, UTC where it names no zone. Raises StackError."""
    if text is None:
        return None
    if match := re.fullmatch(r"(\d{1,6})([mhdw])", text.strip()):
        return now + timedelta(**{UNITS[match[2]]: int(match[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise StackError(f"--expires {text}: give 30d, 12h, 4w, or a date such as 2027-01-31.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def row(key: dict[str, Any], now: datetime) -> list[str]:
    """One key as a line of the list: id, name, state, scopes, project, models, limits."""
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
