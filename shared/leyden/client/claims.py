"""A claimed attempt, and how other processes join it: environment variables and a file of span counts.

`environment_of` makes the variables, `inherited` reads them in the child process. A program gets the key of its
attempt, never the runner's own key.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from leyden.client import semconv
from leyden.client.errors import GatewayError
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
"""The task's input: text as it is, anything else as JSON. Not set when longer than `MAX_INPUT_BYTES`."""
SPAN_COUNTS = "LEYDEN_SPAN_COUNTS_FILE"
"""File to which each process of the rollout appends the number of its spans that the gateway acknowledged."""
TRACEPARENT = "TRACEPARENT"
RESOURCE = "OTEL_RESOURCE_ATTRIBUTES"

MAX_INPUT_BYTES = 100_000
"""Linux allows 128 KiB in one variable; longer input is on standard input only."""
FOREIGN = ("ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")
"""Variables that would send another service's secret to the gateway, or the calls to another service."""
MODEL_NAMES = (
    "OPENAI_MODEL", "OPENAI_MODEL_NAME", "OPENAI_CHAT_MODEL", "OPENAI_CHAT_MODEL_ID", "OPENAI_RESPONSES_MODEL_ID",
    "OPENAI_DEFAULT_MODEL", "ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL", "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL",
)  # fmt: skip
"""Where CrewAI, Semantic Kernel, Agent Framework, Agents SDK and Claude Code read the model's name."""
QUIET = {
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "TRACELOOP_TELEMETRY": "false",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "AGNO_TELEMETRY": "false",
    "ANONYMIZED_TELEMETRY": "False",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
}
"""Switches off what frameworks send to their makers: with the attempt's key it is refused, or times out at exit."""

_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(frozen=True)
class Claim:
    """One attempt at one rollout, to be run by this process. An agent needs `input`, `base_url` and `api_key`."""

    rollout_id: str
    attempt: int
    trace_id: str
    traceparent: str
    base_url: str
    """OpenAI base URL; calls made through it are bound to this attempt."""
    api_key: str
    """Key that is valid for this attempt only; calls made with it are bound to the attempt too."""
    input: Any = None
    task_id: str | None = None
    group_id: str | None = None
    mode: str = "train"
    timeout_s: float | None = None
    """Seconds from the claim; None means no limit."""
    lease_s: float = 30.0
    """The gateway ends the attempt after this long without a heartbeat."""
    recorded: bool = True
    """False if the gateway could not be reached, so that the agent runs unrecorded."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Claim":
        """Read the gateway's answer; ignores unknown fields. Raises `GatewayError` when a required one is missing."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        try:
            return cls(**known)
        except TypeError as error:
            raise GatewayError(f"cannot read the rollout in the gateway's answer: {error}") from error


def context_of(traceparent: str) -> Context:
    """A context whose current span is the remote span that `traceparent` names."""
    return _PROPAGATOR.extract({"traceparent": traceparent}, Context())


def traceparent_of(span: trace.Span) -> str:
    """The `traceparent` header of `span`; empty when the span is not valid."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent", "")


@dataclass(frozen=True)
class SpanCounts:
    """A file with the span counts of other processes, one line for each process that has ended."""

    path: str

    def total(self) -> int | None:
        """The sum of all counts; None if a process did not know its count."""
        lines = Path(self.path).read_text().split()
        return sum(map(int, lines)) if all(line.isdecimal() for line in lines) else None


@contextmanager
def span_counts() -> Iterator[SpanCounts]:
    """A new file, removed at the end of the block."""
    with tempfile.NamedTemporaryFile(prefix="leyden-spans-") as file:
        yield SpanCounts(file.name)


def environment_of(
    claim: Claim,
    gateway_url: str,
    traceparent: str,
    base: Mapping[str, str],
    span_counts: str | None = None,
    model: str | None = None,
) -> dict[str, str]:
    """`base` plus the variables that bind a program's model calls and spans to the attempt.

    `traceparent` is the parent of its spans, `span_counts` the path of the file of span counts, `model` the name of the
    model to call, if it is for us to say. Variables of `QUIET` keep the values that they have in `base`.
    """
    own: dict[str, str | None] = {
        ROLLOUT_ID: claim.rollout_id,
        ATTEMPT: str(claim.attempt),
        BASE_URL: claim.base_url,
        TASK_ID: claim.task_id,
        GROUP_ID: claim.group_id,
        MODE: claim.mode,
        TASK_INPUT: _short(input_text(claim.input)) if claim.input is not None else None,
        SPAN_COUNTS: span_counts,
        TRACEPARENT: traceparent,
        RESOURCE: _resource(claim, base.get(RESOURCE, "")),
        **connection(gateway_url, claim.base_url, claim.api_key),
        # The gateway accepts no metrics; an exporter would log errors.
        "OTEL_METRICS_EXPORTER": base.get("OTEL_METRICS_EXPORTER", "none"),
    }
    own |= dict.fromkeys(MODEL_NAMES, model) if model is not None else {}
    kept = {name: value for name, value in base.items() if name not in own and name not in FOREIGN}
    return QUIET | kept | {name: value for name, value in own.items() if value is not None}


def connection(gateway_url: str, base_url: str, api_key: str) -> dict[str, str]:
    """The variables by which clients of models, exporters of spans, and our commands find a gateway."""
    return {
        GATEWAY_URL: gateway_url,
        API_KEY: api_key,
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_BASE": base_url,
        "OPENAI_API_KEY": api_key,
        "ANTHROPIC_BASE_URL": base_url.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": api_key,
        "OTEL_EXPORTER_OTLP_ENDPOINT": gateway_url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        # Not `authorization=Bearer%20…`: many exporters send the value without decoding it.
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={quote(api_key, safe='')}",
    }


def input_text(value: Any) -> str:
    """A task's input as text: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def inherited() -> Claim | None:
    """The rollout that this process was started in, if any. The parent process renews its lease."""
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
    """The parsed JSON; the text itself when it is not JSON."""
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
