"""What the registry needs from outside."""

from collections.abc import Collection, Mapping
from typing import Protocol

from leyden.kafka import Publisher

__all__ = ["Promotions", "Publisher"]


class Promotions(Protocol):
    """Which version of each policy was promoted last. It only ever rises."""

    async def load(self, policies: Collection[str]) -> Mapping[str, int]:
        """The promoted version of each of `policies` that has one. Raises `Retry` when the store is away."""
        ...

    async def raise_to(self, policy: str, version: int) -> None:
        """Remember `version` unless a newer one is remembered. Raises `Retry` when the store is away."""
        ...
