"""Decides which versions a batch of checkpoints gives, and which of them to promote. No IO."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from leyden.events import CheckpointSaved, Lineage, PolicyPromoted, VersionRegistered
from leyden.events.promotions import REGISTRY
from leyden.ids import derive


@dataclass(frozen=True)
class Decision:
    """The events for a batch: all its versions, and at most one promotion per policy."""

    registered: list[VersionRegistered]
    promoted: list[PolicyPromoted]


def version_name(policy: str, version: int) -> str:
    """The immutable name of a version: `<policy>@<version>`."""
    return f"{policy}@{version}"


def promotion_key(policy: str, version: int) -> str:
    """Key of a version's promotion. Each has its own, so a late one takes no newer one's place when Kafka compacts."""
    return f"{version_name(policy, version)}/promoted"


def decide(checkpoints: Iterable[CheckpointSaved], promoted: Mapping[str, int], automatic: bool) -> Decision:
    """Register every checkpoint, and promote each policy's newest one if it is newer than `promoted[policy]`.

    Only the newest of a batch is promoted, so that after a pause an engine loads the last version directly.
    """
    found = list(checkpoints)
    newest: dict[str, CheckpointSaved] = {}
    for checkpoint in found:
        floor = newest[checkpoint.policy].version if checkpoint.policy in newest else promoted.get(checkpoint.policy, 0)
        if automatic and checkpoint.version > floor:
            newest[checkpoint.policy] = checkpoint
    return Decision([_registered(one) for one in found], [_promoted(one) for one in newest.values()])


def _registered(checkpoint: CheckpointSaved) -> VersionRegistered:
    return VersionRegistered(
        event_id=derive("version-registered", checkpoint.event_id),
        event_time=checkpoint.event_time,
        producer=REGISTRY,
        policy=checkpoint.policy,
        version=checkpoint.version,
        merged_weights=checkpoint.merged_weights,
        adapter=checkpoint.adapter,
        lineage=Lineage(
            parent_version=checkpoint.parent_version,
            base_model=checkpoint.base_model,
            checkpoint_event=checkpoint.event_id,
            manifest_event=checkpoint.manifest_id,
            manifest_sha256=checkpoint.manifest_sha256,
            weights_sha256=checkpoint.weights_sha256,
            settings_hash=checkpoint.settings_hash,
        ),
    )


def _promoted(checkpoint: CheckpointSaved) -> PolicyPromoted:
    return PolicyPromoted(
        event_id=derive("policy-promoted", checkpoint.event_id),
        event_time=checkpoint.event_time,
        producer=REGISTRY,
        policy=checkpoint.policy,
        version=checkpoint.version,
        merged_weights=checkpoint.merged_weights,
        adapter=checkpoint.adapter,
    )
