"""Requests of the commands to the gateway's task queue, sent again while it is away: each of them may be repeated."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from leyden.client.gateway import Backoff, Gateway
from leyden.stack.errors import StackError

V1 = "/leyden/v1"
PATIENCE_S = 60.0
TIMEOUT_S = 60.0
HINTS = {
    401: " Give a key of the gateway with --api-key or LEYDEN_API_KEY.",
    403: " That needs a key of another scope.",
}


class QueueDoor:
    """`/leyden/v1` of one gateway. Raises `StackError` with what the gateway said."""

    def __init__(
        self,
        gateway: Gateway,
        patience_s: float = PATIENCE_S,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = gateway.url
        self._patience_s = patience_s
        self._sleep = sleep
        headers = {"authorization": f"Bearer {gateway.api_key}"} if gateway.api_key else {}
        self._http = httpx.Client(base_url=gateway.url, headers=headers, timeout=TIMEOUT_S, transport=transport)

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The gateway's answer; tries again what may pass, until its patience is out."""
        backoff = Backoff(self._patience_s)
        while True:
            retry_after = None
            try:
                answer = self._http.post(f"{V1}/{path}", json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if answer.is_success:
                    told: dict[str, Any] = answer.json()
                    return told
                if answer.status_code != httpx.codes.TOO_MANY_REQUESTS and answer.status_code < 500:
                    raise StackError(f"{_message(answer)}.{HINTS.get(answer.status_code, '')}")
                problem, retry_after = _message(answer), _seconds(answer.headers.get("retry-after"))
            if (delay := backoff.next(retry_after)) is None:
                raise StackError(f"{self._url} gave no answer to rely on: {problem}. Run the command again to go on.")
            self._sleep(delay)


def _message(answer: httpx.Response) -> str:
    try:
        told = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        told = answer.text[:300] or answer.reason_phrase
    return f"The gateway answered {answer.status_code}: {told}"


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.replace(".", "", 1).isdigit() else None
