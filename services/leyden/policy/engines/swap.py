"""The gate's port to an engine: how new weights get into it."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from leyden.policy.engines.weights import WeightsFolder

Commit = Callable[[], Awaitable[None]]
"""Puts prepared weights in place. It is called while no request runs, and takes effect whole or not at all."""


class EngineBrokenError(Exception):
    """The engine holds neither the old nor the new weights: it must not answer until it is restarted."""


class Swapper(Protocol):
    """Gets weights into one kind of engine. `app` is the engine's own ASGI application (None if it has none)."""

    engine: str
    """What `GET /leyden/v1/weights` calls it."""

    def serves_adapters(self, app: Any) -> bool:
        """Whether an adapter is served beside the base model, selected by the request's `model`."""

    async def add_adapter(self, app: Any, name: str, weights: WeightsFolder) -> None:
        """Load an adapter under an immutable name, while requests run; raises UnusableWeightsError."""

    async def prepare(self, app: Any, name: str, weights: WeightsFolder) -> Commit:
        """Check (and perhaps read) the weights while requests run; raises UnusableWeightsError.

        The returned commit raises whatever went wrong with the old weights still in place, or EngineBrokenError.
        """
