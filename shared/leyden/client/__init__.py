"""The client library: what an agent, or who runs one, may use. It needs OpenTelemetry and httpx only.

None of it is needed by an agent that only calls a model: its base URL and key bind it.
"""

from leyden.client.carrying import carry
from leyden.client.claims import Claim
from leyden.client.errors import (
    AttemptOverError,
    ConfigurationError,
    GatewayError,
    GatewayRefusedError,
    GatewayUnavailableError,
    LeydenError,
    NoRolloutError,
)
from leyden.client.instruments import operation, tool
from leyden.client.notes import annotate, emit_exception, emit_message, emit_object, emit_reward
from leyden.client.rollouts import Rollout, current_rollout, rollout
from leyden.client.runner import Runner
from leyden.client.session import close, flush, init, stats

__all__ = [
    "AttemptOverError", "Claim", "ConfigurationError", "GatewayError", "GatewayRefusedError",
    "GatewayUnavailableError", "LeydenError", "NoRolloutError", "Rollout", "Runner", "annotate", "carry", "close",
    "current_rollout", "emit_exception", "emit_message", "emit_object", "emit_reward", "flush", "init", "operation",
    "rollout", "stats", "tool",
]  # fmt: skip
