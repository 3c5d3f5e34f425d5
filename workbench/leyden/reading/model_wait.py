"""Model calls that wait for an answer, as the gateway tells: they are not in the log before they are answered."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from leyden.stack.state import DataFolder

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


def read_model_wait(data_dir: Path) -> ModelWait | None:
    """Ask the gateway of LEYDEN_GATEWAY_URL, else of the stack in `data_dir`. None if none runs or answers in time."""
    url, key = os.environ.get("LEYDEN_GATEWAY_URL"), os.environ.get("LEYDEN_API_KEY")
    if not url:
        folder = DataFolder(data_dir)
        state = folder.read_state()
        if state.phase != "up":
            return None
        url, key = state.gateway_url, key or folder.secrets().api_key
    request = urllib.request.Request(url.rstrip("/") + CALLS_PATH, headers={"authorization": f"Bearer {key}"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310 - the user's gateway
            return model_wait(json.load(reply)["calls"])
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return None
