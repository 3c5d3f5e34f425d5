"""A command asks the gateway: what came back, or one sentence of what was wrong and what to do."""

from collections.abc import Mapping
from typing import Any

from leyden.client.errors import GatewayError, GatewayRefusedError, GatewayUnavailableError
from leyden.client.gateway import Gateway
from leyden.stack.errors import StackError

TIMEOUT_S = 60.0
"""Of one try: a batch of tasks is in Kafka when it is answered."""
HINTS: Mapping[int, str] = {401: " Give a key of the gateway with --api-key or LEYDEN_API_KEY."}


def ask(
    gateway: Gateway,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    *,
    patience_s: float,
    hints: Mapping[int, str],
    if_away: str = "",
) -> dict[str, Any]:
    """The gateway's answer. Raises `StackError`, with the hint for the status, or `if_away` where nothing answers."""
    try:
        return gateway.ask(method, path, body, patience_s, TIMEOUT_S)
    except GatewayUnavailableError as error:
        raise StackError(f"{_sentence(error)}{if_away}") from error
    except GatewayRefusedError as error:
        hint = {**HINTS, **hints}.get(error.status, "")
        raise StackError(_sentence(error) + hint) from error
    except GatewayError as error:
        raise StackError(_sentence(error)) from error


def _sentence(error: GatewayError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text.startswith("the ") else f"{text.rstrip('.')}."
