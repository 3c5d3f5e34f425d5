"""Leyden: train any AI agent with reinforcement learning, without changing the agent.

The package root holds only the client API (`leyden.init`, `leyden.rollout`, …) and `leyden.train`, which needs the
extras `services` and `local`. They are loaded on first use, so importing a service does not load the client.
`services/`, `shared/` and `workbench/` are source roots of this one package.
"""

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leyden.client import (
        Rollout,
        Runner,
        annotate,
        carry,
        current_rollout,
        emit_exception,
        emit_message,
        emit_object,
        emit_reward,
        flush,
        init,
        operation,
        rollout,
        stats,
        tool,
    )
    from leyden.training import train

__path__ = extend_path(__path__, __name__)

__all__ = [
    "Rollout", "Runner", "annotate", "carry", "current_rollout", "emit_exception", "emit_message", "emit_object",
    "emit_reward", "flush", "init", "operation", "rollout", "stats", "tool", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("leyden.training" if name == "train" else "leyden.client"), name)
    raise AttributeError(f"module 'leyden' has no attribute {name!r}")
