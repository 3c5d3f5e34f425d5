"""Ports of the registry."""

from collections.abc import Collection, Mapping
from typing import Protocol

from leyden.kafka import Publisher

__all__ = ["Promotions", "Publisher"]


class Promotions(Protocol):
    """The promoted version of each policy. It never decreases."""

    async def load(self, policies: Collection[str]) -> Mapping[str, int]:
        """The promoted version of each of `policies` that has one. Raises `Retry` if the store is unavailable."""
        ...

    async def raise_to(self, policy: str, version: int) -> None:
        """Store `version` unless a newer one is stored. Raises `Retry` if the store is unavailable."""
        ...
