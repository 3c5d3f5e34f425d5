"""Events of training and serving: `checkpoints.v1`, `training-metrics.v1` and `models.v1` (compacted)."""

from typing import Literal

from pydantic import Field

from leyden.events.base import Event, Record


class BatchManifest(Record):
    """The exact input of one optimiser step. With the parent version and the settings it gives the same weights."""

    sequence_ids: list[str]
    """Event ids of the step's `SequenceCredited`, in training order."""
    group_ids: list[str]
    origins: list[str]
    """`topic/partition/offset` at which the step's model calls were first recorded, sorted."""
    positions: dict[str, int]
    """`topic/partition` → first offset not used by this or an earlier step."""
    seed: int
    settings_hash: str


class TrainingStepCompleted(Event):
    """One step on a batch: its metrics and its batch.

    A step that changes no weight (`optimiser/skipped`: all advantages are 0, or no gradient is finite) makes no
    version, and its groups do not count as trained.
    """

    type: Literal["training-step-completed"] = "training-step-completed"
    policy: str
    step: int = Field(ge=1)
    version: int = Field(ge=0)
    """The policy version after the step."""
    metrics: dict[str, float]
    unusable: dict[str, str] = Field(default_factory=dict)
    """Groups found unusable since the previous step: group id → `malformed`, `incomplete` or `not_finite`: details."""
    manifest: BatchManifest


class CheckpointSaved(Event):
    """The weights of a version were written to storage completely."""

    type: Literal["checkpoint-saved"] = "checkpoint-saved"
    policy: str
    step: int = Field(ge=1)
    version: int = Field(ge=1)
    parent_version: int = Field(ge=0)
    base_model: str
    checkpoint: str
    """Folder with the optimiser state and everything else that a resumed run needs."""
    merged_weights: str | None = None
    """Folder with the full model, for engines that swap full weights."""
    adapter: str | None = None
    """Folder with the LoRA adapter, for engines that load adapters."""
    manifest_id: str
    """Event id of the step's `TrainingStepCompleted`."""
    manifest_sha256: str
    weights_sha256: str
    settings_hash: str


class Lineage(Record):
    """Where a version comes from."""

    parent_version: int
    base_model: str
    checkpoint_event: str
    manifest_event: str
    manifest_sha256: str
    weights_sha256: str
    settings_hash: str


class VersionRegistered(Event):
    """The registry registered a version. Record key: `<policy>@<version>`."""

    type: Literal["version-registered"] = "version-registered"
    policy: str
    version: int = Field(ge=1)
    merged_weights: str | None = None
    adapter: str | None = None
    lineage: Lineage


class PolicyPromoted(Event):
    """This version should serve. Record key: `<policy>`, so compaction keeps the newest."""

    type: Literal["policy-promoted"] = "policy-promoted"
    policy: str
    version: int = Field(ge=1)
    merged_weights: str | None = None
    adapter: str | None = None


class PolicyServed(Event):
    """A replica now serves this version; gateways route by it. Record key: `<policy>/<replica>`."""

    type: Literal["policy-served"] = "policy-served"
    policy: str
    version: int = Field(ge=0)
    replica: str
    endpoint: str
    """Base URL of the engine, without `/v1`."""
    model: str
    """The `model` of requests for this version."""
    engine: str
