"""What training makes: `checkpoints.v1`, `training-metrics.v1`, and `models.v1` (compacted)."""

from typing import Literal

from pydantic import Field

from leyden.events.base import Event, Record


class BatchManifest(Record):
    """Exactly what one optimiser step was made of: with its parent and settings, it gives the same weights."""

    sequence_ids: list[str]
    """Event ids of the step's `SequenceCredited`, in the order of training."""
    group_ids: list[str]
    origins: list[str]
    """Where the step's model calls were first recorded: `topic/partition/offset`, sorted."""
    positions: dict[str, int]
    """`topic/partition` → first offset not yet used after this step."""
    seed: int
    settings_hash: str


class TrainingStepCompleted(Event):
    """One optimiser step: its numbers and its batch."""

    type: Literal["training-step-completed"] = "training-step-completed"
    policy: str
    step: int = Field(ge=1)
    version: int = Field(ge=1)
    metrics: dict[str, float]
    manifest: BatchManifest


class CheckpointSaved(Event):
    """A version's weights are on storage, complete."""

    type: Literal["checkpoint-saved"] = "checkpoint-saved"
    policy: str
    step: int = Field(ge=1)
    version: int = Field(ge=1)
    parent_version: int = Field(ge=0)
    base_model: str
    checkpoint: str
    """Folder with the optimiser and everything that a resumed run needs."""
    merged_weights: str | None = None
    """Folder with the whole model, for engines that swap full weights."""
    adapter: str | None = None
    """Folder with the LoRA adapter, for engines that load adapters."""
    manifest_id: str
    """Event id of the step's `TrainingStepCompleted`."""
    manifest_sha256: str
    weights_sha256: str
    settings_hash: str


class Lineage(Record):
    """What a version was made from."""

    parent_version: int
    base_model: str
    checkpoint_event: str
    manifest_event: str
    manifest_sha256: str
    weights_sha256: str
    settings_hash: str


class VersionRegistered(Event):
    """A version is known to the registry. Key `<policy>@<version>`."""

    type: Literal["version-registered"] = "version-registered"
    policy: str
    version: int = Field(ge=1)
    merged_weights: str | None = None
    adapter: str | None = None
    lineage: Lineage


class PolicyPromoted(Event):
    """This version shall serve. Key `<policy>`: compaction keeps the newest."""

    type: Literal["policy-promoted"] = "policy-promoted"
    policy: str
    version: int = Field(ge=1)
    merged_weights: str | None = None
    adapter: str | None = None


class PolicyServed(Event):
    """A replica answers with this version now. Key `<policy>/<replica>`; gateways route by it."""

    type: Literal["policy-served"] = "policy-served"
    policy: str
    version: int = Field(ge=0)
    replica: str
    endpoint: str
    """Base URL of the engine, without `/v1`."""
    model: str
    """The `model` that a request must name to be answered by this version."""
    engine: str
