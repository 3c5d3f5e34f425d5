"""The client library: what an agent, or who runs one, may use. It needs OpenTelemetry and httpx only.

None of it is needed by an agent that only calls a model: its base URL and key bind it.
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
from leyden.client.instruments import emit_reward, tool
from leyden.client.rollouts import Rollout, current_rollout, rollout
from leyden.client.runner import Runner
from leyden.client.session import close, flush, init

__all__ = [
    "AttemptOverError", "Claim", "ConfigurationError", "GatewayError", "GatewayRefusedError",
    "GatewayUnavailableError", "LeydenError", "NoRolloutError", "Rollout", "Runner", "close", "current_rollout",
    "emit_reward", "flush", "init", "rollout", "tool",
]  # fmt: skip
