"""The agent's own metrics. A closed list."""

from prometheus_client import Counter, Gauge, Histogram

LIVE_VERSION = Gauge("leyden_policy_live_version", "Version that the engine answers with.")
ENGINE_UP = Gauge("leyden_policy_engine_up", "1 when the engine answered the last look at it.")
SWAPS = Counter("leyden_policy_swaps", "Tries to put a version live: done, refused, away.", ["result"])
SWAP_SECONDS = Histogram(
    "leyden_policy_swap_seconds",
    "From asking the engine for a version to its being live: draining included.",
    buckets=(0.1, 0.5, 1, 2, 5, 10, 30, 60, 180),
)
