"""A rollout as environment variables: how a program that knows nothing of Leyden, or a child process, takes part in it.

`environment_of` writes them, `inherited` reads them in the child. No variable holds the runner's own key: a program
gets the key of its one attempt.
"""

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from leyden.client import semconv
from leyden.client.claims import Claim
from leyden.ids import AttemptRef, is_rollout_id

ROLLOUT_ID = "LEYDEN_ROLLOUT_ID"
ATTEMPT = "LEYDEN_ATTEMPT"
GATEWAY_URL = "LEYDEN_GATEWAY_URL"
API_KEY = "LEYDEN_API_KEY"
BASE_URL = "LEYDEN_BASE_URL"
TASK_ID = "LEYDEN_TASK_ID"
GROUP_ID = "LEYDEN_GROUP_ID"
MODE = "LEYDEN_MODE"
TASK_INPUT = "LEYDEN_TASK_INPUT"
"""The task's input: a text as it is, anything else as JSON. Absent when it is longer than `MAX_INPUT_BYTES`."""
SPAN_COUNTS = "LEYDEN_SPAN_COUNTS_FILE"
"""Where each process of the rollout notes how many of its spans the gateway has acknowledged."""
TRACEPARENT = "TRACEPARENT"
RESOURCE = "OTEL_RESOURCE_ATTRIBUTES"

MAX_INPUT_BYTES = 100_000
"""Linux takes 128 KiB in one variable; standard input carries what is longer."""
FOREIGN_KEYS = ("ANTHROPIC_AUTH_TOKEN",)
"""Variables that would send somebody else's secret to the gateway in place of the attempt's key."""


def environment_of(
    claim: Claim, gateway_url: str, traceparent: str, base: Mapping[str, str], span_counts: str | None = None
) -> dict[str, str]:
    """`base` and what binds a program's model calls and spans to the attempt, below the span of `traceparent`."""
    root = claim.base_url.removesuffix("/v1")
    own: dict[str, str | None] = {
        ROLLOUT_ID: claim.rollout_id,
        ATTEMPT: str(claim.attempt),
        GATEWAY_URL: gateway_url,
        API_KEY: claim.api_key,
        BASE_URL: claim.base_url,
        TASK_ID: claim.task_id,
        GROUP_ID: claim.group_id,
        MODE: claim.mode,
        TASK_INPUT: _short(input_text(claim.input)) if claim.input is not None else None,
        SPAN_COUNTS: span_counts,
        TRACEPARENT: traceparent,
        RESOURCE: _resource(claim, base.get(RESOURCE, "")),
        "OPENAI_BASE_URL": claim.base_url,
        "OPENAI_API_BASE": claim.base_url,
        "OPENAI_API_KEY": claim.api_key,
        "ANTHROPIC_BASE_URL": root,
        "ANTHROPIC_API_KEY": claim.api_key,
        "OTEL_EXPORTER_OTLP_ENDPOINT": gateway_url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{quote(claim.api_key, safe='')}",
        # The gateway takes no metrics: an exporter would only complain.
        "OTEL_METRICS_EXPORTER": base.get("OTEL_METRICS_EXPORTER", "none"),
    }
    kept = {name: value for name, value in base.items() if name not in own and name not in FOREIGN_KEYS}
    return kept | {name: value for name, value in own.items() if value is not None}


def input_text(value: Any) -> str:
    """A task's input as a program reads it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def inherited() -> Claim | None:
    """The rollout that this process was started in, if any. Its lease is kept by who started it."""
    rollout_id = os.environ.get(ROLLOUT_ID)
    if rollout_id is None:
        return None
    names = (ATTEMPT, TRACEPARENT, BASE_URL, API_KEY, TASK_ID, GROUP_ID, MODE, TASK_INPUT)
    return _read(rollout_id, *(os.environ.get(name) for name in names))


@lru_cache(maxsize=1)
def _read(rollout_id: str, attempt: str | None, traceparent: str | None, *rest: str | None) -> Claim | None:
    number = int(attempt) if attempt and attempt.isdecimal() else 0
    if not is_rollout_id(rollout_id):
        return None
    base_url, api_key, task_id, group_id, mode, task_input = rest
    ref = AttemptRef(rollout_id, number)
    return Claim(
        ref.rollout_id, ref.attempt, ref.trace_id, traceparent or f"00-{ref.trace_id}-{ref.trace_id[-16:]}-01",
        base_url or "", api_key or "", _value(task_input), task_id, group_id, mode or "train",
    )  # fmt: skip


def _value(text: str | None) -> Any:
    """JSON as its value; any other text as it is."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _short(text: str) -> str | None:
    return text if len(text.encode(errors="surrogateescape")) <= MAX_INPUT_BYTES and "\0" not in text else None


def _resource(claim: Claim, before: str) -> str:
    ours = {semconv.LEYDEN_ROLLOUT_ID: claim.rollout_id, semconv.LEYDEN_ATTEMPT: str(claim.attempt)}
    kept = [pair for pair in before.split(",") if pair.partition("=")[0].strip() not in {"", *ours}]
    return ",".join([*kept, *(f"{name}={value}" for name, value in ours.items())])
