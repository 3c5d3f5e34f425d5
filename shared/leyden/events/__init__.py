"""The events of Leyden: immutable facts, versioned, one module per stage. No IO."""

from leyden.events.base import (
    Event,
    Json,
    JsonObject,
    OfAttempt,
    PackedFloats,
    PackedInts,
    Record,
    pack_floats,
    pack_ints,
    unpack_floats,
    unpack_ints,
)
from leyden.events.calls import Choice, ModelCallRecorded, Sampling, Usage
from leyden.events.models import (
    BatchManifest,
    CheckpointSaved,
    Lineage,
    PolicyPromoted,
    PolicyServed,
    TrainingStepCompleted,
    VersionRegistered,
)
from leyden.events.rewards import Evidence, Judgement, RewardAssigned, RewardsCompleted, VerdictRecorded
from leyden.events.rollouts import (
    Failure,
    FailureClass,
    RolloutEnded,
    RolloutSettled,
    RolloutStarted,
    Task,
    TaskEnqueued,
)
from leyden.events.spans import Evaluation, SpanKind, SpanRecorded, ToolCall
from leyden.events.transitions import GroupClosed, GroupClosing, GroupCredited, SequenceCredited, Transition

__all__ = [
    "BatchManifest", "CheckpointSaved", "Choice", "Evaluation", "Event", "Evidence", "Failure", "FailureClass",
    "GroupClosed", "GroupClosing", "GroupCredited", "Json", "JsonObject", "Judgement", "Lineage", "ModelCallRecorded",
    "OfAttempt", "PackedFloats", "PackedInts", "PolicyPromoted", "PolicyServed", "Record", "RewardAssigned",
    "RewardsCompleted", "RolloutEnded", "RolloutSettled", "RolloutStarted", "Sampling", "SequenceCredited", "SpanKind",
    "SpanRecorded", "Task", "TaskEnqueued", "ToolCall", "TrainingStepCompleted", "Transition", "Usage",
    "VerdictRecorded", "VersionRegistered", "pack_floats", "pack_ints", "unpack_floats", "unpack_ints",
]  # fmt: skip
