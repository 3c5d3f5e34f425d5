"""Makers of what the registry consumes, and its store in memory. For the tests of the registry."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from leyden.events import CheckpointSaved
from leyden.ids import derive


def checkpoint(version: int, policy: str = "p") -> CheckpointSaved:
    return CheckpointSaved(
        event_id=derive("checkpoint", policy, version),
        event_time=datetime(2026, 1, 1, 0, version, tzinfo=UTC),
        producer="trainer",
        policy=policy,
        step=version,
        version=version,
        parent_version=version - 1,
        base_model="base",
        checkpoint=f"c/{version}",
        merged_weights=f"w/{version}",
        adapter=f"a/{version}",
        manifest_id=derive("step", policy, version),
        manifest_sha256="00",
        weights_sha256=f"{version:064x}",
        settings_hash="11",
    )


class MemoryPromotions:
    """`Promotions` in memory."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}

    async def load(self, policies: Collection[str]) -> Mapping[str, int]:
        return {policy: self.versions[policy] for policy in policies if policy in self.versions}

    async def raise_to(self, policy: str, version: int) -> None:
        self.versions[policy] = max(version, self.versions.get(policy, 0))
