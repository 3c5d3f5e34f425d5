"""HTTP client for the engine."""

from urllib.parse import unquote, urlsplit

import httpx

from leyden.policy.core import EngineReport
from leyden.policy.engines.naming import VersionName
from leyden.policy.ports import EngineAwayError, EngineRefusedError

WEIGHTS = "/leyden/v1/weights"
REFUSALS = frozenset({400, 403, 405, 422})
"""Response codes for which a retry cannot succeed."""


class HttpEngine:
    """`Engine` over HTTP. `client` needs the engine's base URL and a read timeout longer than a swap."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def report(self) -> EngineReport:
        """See `Engine`."""
        return _report(await self._ask("GET"))

    async def load(self, policy: str, version: int, folder: str) -> EngineReport:
        """See `Engine`."""
        name = VersionName(policy, version)
        return _report(await self._ask("POST", {"version": str(name), "path": local_path(folder)}))

    async def _ask(self, method: str, body: dict[str, str] | None = None) -> httpx.Response:
        try:
            response = await self._client.request(method, WEIGHTS, json=body)
        except httpx.HTTPError as problem:
            raise EngineAwayError(f"{self._client.base_url}: {type(problem).__name__} {problem}".rstrip()) from problem
        if method == "POST" and response.status_code in REFUSALS:
            raise EngineRefusedError(response.text)
        if response.status_code != httpx.codes.OK:
            raise EngineAwayError(f"{self._client.base_url} returned {response.status_code}: {response.text}")
        return response


def local_path(folder: str) -> str:
    """The path of a plain path or `file://` URL. Raises EngineRefusedError for other URLs and for an empty string."""
    parts = urlsplit(folder)
    if not folder or parts.scheme not in ("", "file"):
        raise EngineRefusedError(f"weights must be a folder on the engine's file system, not {folder!r}")
    return unquote(parts.path) if parts.scheme else folder


def _report(response: httpx.Response) -> EngineReport:
    try:
        body = response.json()
        name = VersionName.parse(body["version"])
        return EngineReport(
            policy=name.policy,
            version=name.number,
            engine=body["engine"],
            model=body["model"],
            adapters=bool(body["adapters"]),
        )
    except (ValueError, KeyError, TypeError) as problem:
        raise EngineAwayError(f"response is not from a Leyden engine: {response.text[:200]}") from problem
