"""Metrics of the policy agent."""

from prometheus_client import Counter, Gauge, Histogram

LIVE_VERSION = Gauge("leyden_policy_live_version", "Version that the engine serves.")
ENGINE_UP = Gauge("leyden_policy_engine_up", "1 if the engine answered the last probe.")
SWAPS = Counter("leyden_policy_swaps", "Attempts to load a version, by result: done, refused, away.", ["result"])
SWAP_SECONDS = Histogram(
    "leyden_policy_swap_seconds",
    "Time of a swap from the request until the version is live, draining included.",
    buckets=(0.1, 0.5, 1, 2, 5, 10, 30, 60, 180),
)
