"""Events of training and serving: `training-batches.v1`, `training-metrics.v1`, `checkpoints.v1`, `models.v1`."""

from typing import Literal

from pydantic import Field

from leyden.events.base import Event, Record


class BatchGroup(Record):
    """A group of a batch, and the revision of it that is trained."""

    group_id: str
    revision: int = Field(default=0, ge=0)


class BatchFormed(Event):
    """The trainer chose the groups of its next step. Published before the step is made.

    Which groups are complete first depends on the order of arrival, so the choice is recorded: a restart, a replay and
    a second trainer with the same rules follow it. Batches form a chain. Of two with the same parent, the first in the
    log counts.
    """

    type: Literal["batch-formed"] = "batch-formed"
    policy: str
    credit: str = ""
    """Name of the credit service whose transitions are trained."""
    parent: str = ""
    """Event id of the batch before this one; empty for the first."""
    replaces: str = ""
    """Event id of the recorded batch in whose place this one is trained; empty if there is none.

    A trainer whose log does not have exactly the sequences of a recorded batch (a replay with fewer revisions, a group
    that was dropped) records what it trains instead, and goes on with that batch's successors.
    """
    step: int = Field(ge=1)
    version: int = Field(ge=0)
    """The version that the step starts from."""
    groups: list[BatchGroup] = Field(min_length=1)
    """In training order."""
    sequence_ids: list[str]
    """Event ids of their `SequenceCredited`, in training order."""
    groups_per_step: int = Field(ge=1)
    drop_zero_variance: bool = False
    max_staleness: int | None = Field(default=None, ge=0)
    seed: int
    settings_hash: str
    """Of the trainer that formed the batch."""


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
    """This version should serve, unless the registry had promoted a newer one (`leyden.events.promotions`).

    Record key: `<policy>@<version>/promoted`; before that had a version, `<policy>`.
    """

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
