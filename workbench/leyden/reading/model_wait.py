"""Model calls that wait for an answer, as the gateway tells: they are not in the log before they are answered."""

import json
import urllib.request
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from leyden.reading.gateway import gateway_of_log
from leyden.reading.location import LogLocation

CALLS_PATH = "/leyden/v1/calls"
TIMEOUT_S = 2.0
LONG_S = 20.0
"""From this age on, a call is slow enough to say so."""


class ModelWait(BaseModel):
    """The calls whose answer has not begun after a second."""

    model_config = ConfigDict(frozen=True)

    calls: int
    oldest_s: float
    """Age of the oldest call in seconds; 0 if there is none."""
    oldest: str | None
    """Trace id of its attempt; None if it belongs to no rollout."""
    model: str
    """The model that it asked for; "" if there is none."""
    attempts: dict[str, float]
    """Trace id → age of that attempt's oldest call."""

    @property
    def is_long(self) -> bool:
        """Whether the oldest call has waited for long."""
        return self.oldest_s >= LONG_S

    @property
    def text(self) -> str:
        """For people."""
        calls = "1 model call waits" if self.calls == 1 else f"{self.calls} model calls wait"
        oldest = f"the oldest for {self.oldest_s:.0f} s (model `{self.model}`)"
        return f"{calls} for an answer, {oldest}" if self.calls else "no model call waits"

    def explains(self, trace_id: str | None) -> bool:
        """Whether a call of that attempt has waited for long."""
        return trace_id is not None and self.attempts.get(trace_id, 0.0) >= LONG_S


def model_wait(calls: Iterable[Mapping[str, Any]]) -> ModelWait:
    """Of the gateway's list of calls, each with `trace_id`, `model` and `seconds`."""
    found = sorted(((call["seconds"], call["trace_id"], call["model"]) for call in calls), key=lambda one: -one[0])
    attempts: dict[str, float] = {}
    for seconds, trace_id, _ in found:
        if trace_id is not None:
            attempts.setdefault(trace_id, seconds)
    oldest_s, oldest, model = found[0] if found else (0.0, None, "")
    return ModelWait(calls=len(found), oldest_s=oldest_s, oldest=oldest, model=model, attempts=attempts)


def read_model_wait(location: LogLocation, prefix: str, data_dir: Path) -> ModelWait | None:
    """Ask the gateway that writes the log. None if it is not known, does not run, or gives no usable answer in time."""
    gateway = gateway_of_log(location, prefix, data_dir)
    if gateway is None:
        return None
    headers = {"authorization": f"Bearer {gateway.api_key}"} if gateway.api_key else {}
    try:
        request = urllib.request.Request(gateway.url + CALLS_PATH, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310 - the user's gateway
            return model_wait(json.load(reply)["calls"])
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None
