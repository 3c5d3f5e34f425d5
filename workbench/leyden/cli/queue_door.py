"""Requests of the commands to the gateway's task queue, sent again while it is away: each of them may be repeated."""

from typing import Any

from leyden.cli.asking import ask
from leyden.client.gateway import Gateway

V1 = "/leyden/v1"
PATIENCE_S = 60.0
HINTS = {403: " That needs a key of another scope."}


class QueueDoor:
    """`/leyden/v1` of one gateway. Raises `StackError` with what the gateway said."""

    def __init__(self, gateway: Gateway, patience_s: float = PATIENCE_S) -> None:
        self._gateway = gateway
        self._patience_s = patience_s

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The gateway's answer; tries again what may pass, until its patience is out."""
        again = " Run the command again to go on."
        asked = f"{V1}/{path}"
        return ask(self._gateway, "POST", asked, body, patience_s=self._patience_s, hints=HINTS, if_away=again)
