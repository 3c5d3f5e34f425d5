"""Requests of the commands to the gateway. Failures become a `StackError` that says what to do."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from leyden.client.errors import GatewayError, GatewayRefusedError, GatewayUnavailableError
from leyden.client.gateway import GatewayClient
from leyden.client.waiting import told_if_slow
from leyden.reading.gateway import gateway_address
from leyden.stack.errors import StackError

REQUEST_TIMEOUT_S = 60.0
"""For one request; a batch of tasks is answered once it is in Kafka."""
RETRY_TIMEOUT_S = 60.0
CLIENT_RETRY_TIMEOUT_S = 10.0
"""For requests that set no other limit."""
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
        with told_if_slow(f"the gateway at {gateway.url}", retry_timeout_s):
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


def gateway_of(url: str | None, api_key: str | None, data_dir: Path) -> GatewayClient:
    """A client of the gateway at `url`, else LEYDEN_GATEWAY_URL, else of the stack that runs in `data_dir`."""
    found = gateway_address(url, api_key, data_dir)
    if found is None:
        raise StackError(
            f"No gateway given, and no stack runs in {data_dir.resolve()}. Start one with `leyden up`, or pass "
            "--gateway, LEYDEN_GATEWAY_URL, or the --data-dir of a running stack."
        )
    if not found.url.startswith(("http://", "https://")):
        raise StackError(f"{found.url!r} is not a gateway URL: it must begin with http:// or https://.")
    return GatewayClient(found.url, found.api_key, CLIENT_RETRY_TIMEOUT_S)


@contextmanager
def task_queue(url: str | None, api_key: str | None, data_dir: Path) -> Iterator[TaskQueue]:
    """The task queue of the gateway that `gateway_of` finds, with a connection of its own."""
    with closing(gateway_of(url, api_key, data_dir)) as gateway:
        yield TaskQueue(gateway)


def _sentence(error: GatewayError) -> str:
    text = str(error).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
