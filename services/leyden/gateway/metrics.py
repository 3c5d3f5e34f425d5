"""All metrics of the gateway."""

from typing import Any, TypeVar

from prometheus_client import Counter, Gauge, Histogram

MetricT = TypeVar("MetricT", Counter, Gauge, Histogram)
_children: dict[tuple[object, tuple[str, ...]], Any] = {}


def labelled(metric: MetricT, *values: str) -> MetricT:
    """A metric with label values, cached: looking labels up costs more than counting."""
    child = _children.get((metric, values))
    if child is None:
        child = _children[metric, values] = metric.labels(*values)
    return child


CALLS = Counter(
    "leyden_gateway_model_calls",
    "Model calls recorded, by outcome: ok, engine_error, torn, version_mismatch, cut_off, internal.",
    ["policy", "outcome"],
)
TOKENS = Counter("leyden_gateway_tokens", "Tokens of recorded calls, by kind: prompt, completion.", ["policy", "kind"])
CALL_SECONDS = Histogram(
    "leyden_gateway_model_call_seconds",
    "Time from a call's arrival to its record's acknowledgement.",
    ["policy"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
FIRST_TOKEN_SECONDS = Histogram(
    "leyden_gateway_first_token_seconds",
    "Time from a streamed call's arrival at its handler to the first token from the engine.",
    ["policy"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
QUEUE_SECONDS = Histogram(
    "leyden_gateway_queue_seconds",
    "Time from a model call's arrival to its handler: from the proxy in front where it says so in x-request-start, "
    "else from when its first bytes were read.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
RECORD_SECONDS = Histogram(
    "leyden_gateway_record_seconds",
    "What recording adds to a call: Kafka's acknowledgement and the listing of its id.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
UNBOUND_CALLS = Counter("leyden_gateway_unbound_calls", "Recorded calls that belong to no rollout.")
OVERRIDDEN = Counter("leyden_gateway_overridden_sampling", "Training calls sampled without a parameter.", ["parameter"])
PROMPTS = Counter(
    "leyden_gateway_prompts",
    "Prompts of policies with token in, token out: first, extended, forked (its messages extend no earlier call), "
    "drifted (the engine found another history), unsupported (by the engine).",
    ["policy", "outcome"],
)
LATE_CALLS = Counter("leyden_gateway_late_calls", "Calls refused because their attempt was not under way.")
TRIES = Counter(
    "leyden_gateway_tries",
    "Servers asked for model calls, by policy or upstream and outcome: ok, unreachable, broke (before the first byte), "
    "timeout, status_429, status_503, error (another status), mismatch (another version than asked for).",
    ["target", "outcome"],
)
RETRIES = Counter(
    "leyden_gateway_retries",
    "Model calls for which another server, or the same again, was asked, by the reason: outcomes of tries.",
    ["target", "reason"],
)
CIRCUIT_STATE = Gauge(
    "leyden_gateway_circuit_state", "Circuits by replica or upstream: 0 closed, 0.5 one call tries, 1 open.", ["server"]
)
CIRCUIT_OPENED = Counter(
    "leyden_gateway_circuit_opened", "How often a circuit opened, by replica or upstream.", ["server"]
)
VERSION_MOVES = Counter(
    "leyden_gateway_sticky_version_moves", "Rollouts that went on at another version: theirs was no longer live."
)
REFUSED = Counter("leyden_gateway_refused_requests", "Requests that the gateway itself refused.", ["code"])
IN_FLIGHT = Gauge(
    "leyden_gateway_in_flight_requests",
    "Requests being served, by kind: calls, traces, claims (waiting ones too), requests (the others of /leyden/v1).",
    ["kind"],
)
CONNECTIONS = Gauge("leyden_gateway_connections", "Open connections to the gateway's own port, idle ones too.")
WAITED_TOO_LONG = Counter(
    "leyden_gateway_disconnected_clients",
    "Connections that were closed because the client let the gateway wait too long, by what for: head, body, rest "
    "(of a body, after the reply), idle, reader (it does not read), closed (it does not read what is left).",
    ["wait"],
)
BODY_BYTES = Gauge(
    "leyden_gateway_body_bytes",
    "Bytes of requests in memory, as estimated from their bodies, by kind: json (model calls), leyden, otlp.",
    ["kind"],
)
TRACE_BYTES = Counter("leyden_gateway_trace_bytes", "Bytes of OTLP requests forwarded, after decompression.")
OTLP_ITEMS = Counter("leyden_gateway_otlp_items", "Spans and log records acknowledged, by signal.", ["signal"])
OTLP_NOT_KEPT = Counter("leyden_gateway_otlp_metrics_bytes", "Bytes of OTLP metrics, which are answered and not kept.")
CLAIMED = Counter("leyden_gateway_claimed_attempts", "Attempts handed to runners.")
ENDED = Counter("leyden_gateway_ended_attempts", "Attempts whose end was published here.", ["status", "final"])
LOST_ATTEMPTS = Counter("leyden_gateway_lost_attempts", "Attempts ended by the sweeper.", ["failure_class"])
FAILED = Counter("leyden_gateway_failed_attempts", "Failed attempts whose end was published here.", ["failure_class"])
UNREADABLE = Counter(
    "leyden_gateway_unreadable_records",
    "Records left out when the queue's state was read from the log: what they refer to is not there as it was.",
    ["topic"],
)
DELAYED = Gauge("leyden_gateway_delayed_rollouts", "Queued rollouts whose next attempt may not begin yet.")
QUEUED = Gauge("leyden_gateway_queued_rollouts", "Rollouts that wait for a runner.")
RUNNING = Gauge("leyden_gateway_running_rollouts", "Attempts under way.")
