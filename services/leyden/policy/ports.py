"""Ports of the policy agent."""

from typing import Protocol

from leyden.policy.core import EngineReport


class EngineAwayError(Exception):
    """The engine is unavailable for now: starting, draining or down. Try again later."""


class EngineRefusedError(Exception):
    """The engine rejects these weights; a retry cannot succeed."""


class Engine(Protocol):
    """An engine behind the version gate."""

    async def report(self) -> EngineReport:
        """The live version. Raises EngineAwayError."""

    async def load(self, policy: str, version: int, folder: str) -> EngineReport:
        """Load `folder`; returns once that version serves. Raises EngineAwayError or EngineRefusedError."""
