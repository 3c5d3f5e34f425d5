"""The gateway's own metrics: a closed list."""

from prometheus_client import Counter, Gauge, Histogram

CALLS = Counter(
    "leyden_gateway_model_calls",
    "Model calls recorded, by outcome: ok, engine_error, torn, version_mismatch, cut_off.",
    ["policy", "outcome"],
)
TOKENS = Counter("leyden_gateway_tokens", "Tokens of recorded calls, by kind: prompt, completion.", ["policy", "kind"])
CALL_SECONDS = Histogram(
    "leyden_gateway_model_call_seconds",
    "Time from a call's arrival to its record's acknowledgement.",
    ["policy"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
RECORD_SECONDS = Histogram(
    "leyden_gateway_record_seconds",
    "What recording adds to a call: Kafka's acknowledgement and the listing of its id.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
UNBOUND_CALLS = Counter("leyden_gateway_unbound_calls", "Recorded calls that belong to no rollout.")
OVERRIDDEN = Counter("leyden_gateway_overridden_sampling", "Training calls sampled without a parameter.", ["parameter"])
LATE_CALLS = Counter("leyden_gateway_late_calls", "Calls refused because their attempt was not under way.")
CONNECT_RETRIES = Counter("leyden_gateway_connect_retries", "Replicas that could not be reached, another was tried.")
REFUSED = Counter("leyden_gateway_refused_requests", "Requests that the gateway itself refused.", ["code"])
IN_FLIGHT = Gauge("leyden_gateway_in_flight_requests", "Requests being served, by kind: calls, traces.", ["kind"])
TRACE_BYTES = Counter("leyden_gateway_trace_bytes", "Bytes of OTLP requests forwarded, after decompression.")
CLAIMED = Counter("leyden_gateway_claimed_attempts", "Attempts handed to runners.")
ENDED = Counter("leyden_gateway_ended_attempts", "Attempts whose end was published here.", ["status", "final"])
LOST_ATTEMPTS = Counter("leyden_gateway_lost_attempts", "Attempts ended by the sweeper.", ["failure_class"])
QUEUED = Gauge("leyden_gateway_queued_rollouts", "Rollouts that wait for a runner.")
RUNNING = Gauge("leyden_gateway_running_rollouts", "Attempts under way.")
