"""The gate's port for loading weights into an engine."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from leyden.policy.engines.weights import WeightsFolder

Commit = Callable[[], Awaitable[None]]
"""Activates prepared weights. Called while no request is running; must take effect completely or not at all."""


class EngineBrokenError(Exception):
    """The engine has neither the old nor the new weights, and must not serve until it is restarted."""


class Swapper(Protocol):
    """Loads weights into one kind of engine. `app` is the engine's ASGI application (None if it has none)."""

    engine: str
    """Name of the engine in `GET /leyden/v1/weights`."""

    def misconfigured(self, app: Any) -> str | None:
        """Why responses of this engine must not be trained on, and what to change; None if they may. Asked at start."""

    def serves_adapters(self, app: Any) -> bool:
        """Whether adapters are served next to the base model and selected by a request's `model`."""

    async def add_adapter(self, app: Any, name: str, weights: WeightsFolder) -> None:
        """Load an adapter under `name` while requests run. Raises UnusableWeightsError."""

    async def prepare(self, app: Any, name: str, weights: WeightsFolder) -> Commit:
        """Check, and possibly read, the weights while requests run. Raises UnusableWeightsError.

        The returned function raises EngineBrokenError if the old weights are lost; after any other exception they are
        still in place.
        """
