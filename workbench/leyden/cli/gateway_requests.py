"""Requests of the commands to the gateway. Failures become a `StackError` that says what to do."""

from collections.abc import Mapping
from typing import Any

from leyden.client.errors import GatewayError, GatewayRefusedError, GatewayUnavailableError
from leyden.client.gateway import GatewayClient
from leyden.stack.errors import StackError

REQUEST_TIMEOUT_S = 60.0
"""For one request; a batch of tasks is answered once it is in Kafka."""
RETRY_TIMEOUT_S = 60.0
HINTS: Mapping[int, str] = {401: " Pass a valid key with --api-key or LEYDEN_API_KEY."}


def request(
    gateway: GatewayClient,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    *,
    retry_timeout_s: float,
    hints: Mapping[int, str],
    if_unavailable: str = "",
) -> dict[str, Any]:
    """The gateway's answer. Raises `StackError`, ending with the status's hint, or `if_unavailable` if none came."""
    try:
        return gateway.request(method, path, body, retry_timeout_s, REQUEST_TIMEOUT_S)
    except GatewayUnavailableError as error:
        raise StackError(f"{_sentence(error)}{if_unavailable}") from error
    except GatewayRefusedError as error:
        hint = {**HINTS, **hints}.get(error.status, "")
        raise StackError(_sentence(error) + hint) from error
    except GatewayError as error:
        raise StackError(_sentence(error)) from error


class TaskQueue:
    """The task queue of one gateway. Its requests are idempotent and are retried while the gateway is unavailable."""

    def __init__(self, gateway: GatewayClient, retry_timeout_s: float = RETRY_TIMEOUT_S) -> None:
        self._gateway = gateway
        self._retry_timeout_s = retry_timeout_s

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of `/leyden/v1/<path>`. Raises `StackError`."""
        return request(
            self._gateway,
            "POST",
            f"/leyden/v1/{path}",
            body,
            retry_timeout_s=self._retry_timeout_s,
            hints={403: " Pass a key with that scope."},
            if_unavailable=" Run the command again to continue.",
        )


def _sentence(error: GatewayError) -> str:
    text = str(error).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
