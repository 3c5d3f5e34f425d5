"""Client library for agents and for programs that run agents. Depends on httpx and OpenTelemetry only.

An agent that only calls a model does not need it: its base URL and key bind its calls to the rollout.
"""

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
from leyden.client.rollouts import Rollout, carry, current_rollout, rollout
from leyden.client.runner import Runner
from leyden.client.session import close, flush, init, stats
from leyden.client.spans import (
    annotate,
    emit_exception,
    emit_message,
    emit_object,
    emit_reward,
    operation,
    tool,
)

__all__ = [
    "AttemptOverError", "Claim", "ConfigurationError", "GatewayError", "GatewayRefusedError",
    "GatewayUnavailableError", "LeydenError", "NoRolloutError", "Rollout", "Runner", "annotate", "carry", "close",
    "current_rollout", "emit_exception", "emit_message", "emit_object", "emit_reward", "flush", "init", "operation",
    "rollout", "stats", "tool",
]  # fmt: skip
