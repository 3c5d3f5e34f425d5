"""What the agent needs from the engine beside it."""

from typing import Protocol

from leyden.policy.core import EngineReport


class EngineAwayError(Exception):
    """The engine cannot do it now (it starts, drains, or is gone): ask again later."""


class EngineRefusedError(Exception):
    """The engine will never load these weights: asking again changes nothing."""


class Engine(Protocol):
    """An engine behind the version gate."""

    async def report(self) -> EngineReport:
        """What is live now; raises EngineAwayError."""

    async def load(self, policy: str, version: int, folder: str) -> EngineReport:
        """Put `folder` live; returns once it answers. Raises EngineAwayError or EngineRefusedError."""
