"""The event models of Leyden: immutable, versioned, one module per stage. No IO."""

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
from leyden.events.keys import KeyCreated, KeyLimits, KeyRevoked
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
    FailureEvidence,
    QueuePaused,
    QueueResumed,
    RetryPolicy,
    RolloutEnded,
    RolloutSettled,
    RolloutStarted,
    Task,
    TaskEnqueued,
)
from leyden.events.spans import Evaluation, LlmCall, Outcome, Retrieval, SpanKind, SpanRecorded, ToolCall, model_calls
from leyden.events.transitions import GroupClosed, GroupClosing, GroupCredited, SequenceCredited, Transition

__all__ = [
    "BatchManifest", "CheckpointSaved", "Choice", "Evaluation", "Event", "Evidence", "Failure", "FailureClass",
    "FailureEvidence", "GroupClosed", "GroupClosing", "GroupCredited", "Json", "JsonObject", "Judgement", "KeyCreated",
    "KeyLimits", "KeyRevoked", "Lineage", "LlmCall", "ModelCallRecorded", "OfAttempt", "Outcome", "PackedFloats",
    "PackedInts", "PolicyPromoted", "PolicyServed", "QueuePaused", "QueueResumed", "Record", "Retrieval",
    "RetryPolicy", "RewardAssigned", "RewardsCompleted", "RolloutEnded", "RolloutSettled", "RolloutStarted",
    "Sampling", "SequenceCredited", "SpanKind", "SpanRecorded", "Task", "TaskEnqueued", "ToolCall",
    "TrainingStepCompleted", "Transition", "Usage", "VerdictRecorded", "VersionRegistered", "model_calls",
    "pack_floats", "pack_ints", "unpack_floats", "unpack_ints",
]  # fmt: skip
