"""The state of every rollout, from events of several topics in any order. Redelivered events change nothing. No IO."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from leyden.analysis.rewards import TRAIN
from leyden.events import (
    Event,
    Failure,
    ModelCallRecorded,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    RolloutStarted,
    TaskEnqueued,
)
from leyden.events.codec import MODEL_CALLS, REWARDS, ROLLOUTS, TASKS
from leyden.ids import AttemptRef

TOPICS = (TASKS, ROLLOUTS, MODEL_CALLS, REWARDS)
"""Whose events `Rollouts.see` uses."""


class RolloutStatus(StrEnum):
    """Where a rollout is."""

    QUEUED = "queued"
    """No runner has claimed it."""
    RUNNING = "running"
    RETRYING = "retrying"
    """An attempt failed; the next one has not started."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass
class SeenAttempt:
    """What the log has of one attempt."""

    started_at: datetime | None = None
    ended_at: datetime | None = None
    succeeded: bool = False
    final: bool = True
    failure: Failure | None = None
    settled: bool = False
    revision: int = -1
    """Of its completed rewards; -1 before the first."""
    reward_ids: frozenset[str] = frozenset()
    failed_rules: tuple[str, ...] = ()
    outcome_missing: bool = False
    given: dict[str, float] = field(default_factory=dict)
    """Reward's event id → value × weight."""
    calls: set[str] = field(default_factory=set)
    call_errors: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    """Policy → newest version that answered."""

    @property
    def reward(self) -> float | None:
        """Sum of the rewards that the newest revision names; None if there are none."""
        named = [self.given[one] for one in self.reward_ids if one in self.given]
        return sum(named) if named else None

    @property
    def seconds(self) -> float | None:
        """How long it ran; None before its end."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


@dataclass
class SeenRollout:
    """What the log has of one rollout."""

    rollout_id: str
    task_id: str | None = None
    group_id: str = ""
    group_size: int = 1
    mode: str = TRAIN
    timeout_s: float | None = None
    enqueued_at: datetime | None = None
    attempts: dict[int, SeenAttempt] = field(default_factory=dict)

    @property
    def attempt(self) -> int:
        """The newest attempt; -1 before the first."""
        return max((n for n, one in self.attempts.items() if one.started_at or one.ended_at), default=-1)

    @property
    def newest(self) -> SeenAttempt:
        """The newest attempt; an empty one before the first."""
        return self.attempts.get(self.attempt) or SeenAttempt()

    @property
    def trace_id(self) -> str:
        """Trace id of the newest attempt."""
        return AttemptRef(self.rollout_id, max(self.attempt, 0)).trace_id

    @property
    def status(self) -> RolloutStatus:
        """Where it is."""
        newest = self.newest
        if newest.ended_at is None:
            return RolloutStatus.RUNNING if newest.started_at else RolloutStatus.QUEUED
        if not newest.final:
            return RolloutStatus.RETRYING
        return RolloutStatus.SUCCEEDED if newest.succeeded else RolloutStatus.FAILED

    @property
    def ended(self) -> bool:
        """Whether it will not be tried again."""
        return self.status in (RolloutStatus.SUCCEEDED, RolloutStatus.FAILED)

    @property
    def version(self) -> str | None:
        """`policy@version` that answered its newest attempt, the newest of several; None without such a call."""
        versions = self.newest.versions
        return ",".join(f"{policy}@{version}" for policy, version in sorted(versions.items())) or None

    @property
    def at(self) -> datetime | None:
        """The time of its last change of status."""
        return self.newest.ended_at or self.newest.started_at or self.enqueued_at


class Rollouts:
    """All rollouts by id. `see` takes any event and ignores those that say nothing about a rollout."""

    def __init__(self) -> None:
        self.by_id: dict[str, SeenRollout] = {}

    def __iter__(self) -> Iterator[SeenRollout]:
        return iter(self.by_id.values())

    def __len__(self) -> int:
        return len(self.by_id)

    def see(self, event: Event) -> SeenRollout | None:
        """Add one event; the rollout that it is about, the last one of a task."""
        match event:
            case TaskEnqueued():
                return self._enqueued(event)
            case RolloutStarted():
                return self._started(event)
            case RolloutEnded():
                return self._ended(event)
            case RolloutSettled():
                self._attempt(event.ref).settled = True
                return self.by_id[event.rollout_id]
            case RewardAssigned():
                self._attempt(event.ref).given[event.event_id] = event.value * event.weight
                return self.by_id[event.rollout_id]
            case RewardsCompleted():
                return self._judged(event)
            case ModelCallRecorded():
                return self._called(event)
            case _:
                return None

    def _rollout(self, rollout_id: str) -> SeenRollout:
        return self.by_id.setdefault(rollout_id, SeenRollout(rollout_id))

    def _attempt(self, ref: AttemptRef) -> SeenAttempt:
        return self._rollout(ref.rollout_id).attempts.setdefault(ref.attempt, SeenAttempt())

    def _enqueued(self, event: TaskEnqueued) -> SeenRollout | None:
        rollout = None
        for rollout_id in event.rollout_ids:
            rollout = self._rollout(rollout_id)
            rollout.task_id, rollout.mode, rollout.timeout_s = event.task.task_id, event.task.mode, event.timeout_s
            rollout.group_id, rollout.group_size = event.group_id, len(event.rollout_ids)
            rollout.enqueued_at = event.event_time
        return rollout

    def _started(self, event: RolloutStarted) -> SeenRollout:
        rollout = self._rollout(event.rollout_id)
        rollout.group_id, rollout.group_size = event.group_id, event.group_size
        rollout.task_id = rollout.task_id or event.task_id
        self._attempt(event.ref).started_at = event.event_time
        return rollout

    def _ended(self, event: RolloutEnded) -> SeenRollout:
        rollout, attempt = self._rollout(event.rollout_id), self._attempt(event.ref)
        rollout.group_id, rollout.group_size = event.group_id, event.group_size
        if event.task is not None:
            rollout.task_id, rollout.mode = event.task.task_id, event.task.mode
        attempt.started_at, attempt.ended_at = event.started_at, event.event_time
        attempt.succeeded, attempt.final, attempt.failure = event.status == "succeeded", event.final, event.failure
        return rollout

    def _judged(self, event: RewardsCompleted) -> SeenRollout:
        attempt = self._attempt(event.ref)
        if event.revision > attempt.revision:
            attempt.revision, attempt.reward_ids = event.revision, frozenset(event.reward_ids)
            attempt.failed_rules, attempt.outcome_missing = tuple(event.failed_rules), event.outcome_missing
        return self.by_id[event.rollout_id]

    def _called(self, event: ModelCallRecorded) -> SeenRollout | None:
        if event.rollout_id is None:
            return None
        attempt = self._attempt(AttemptRef(event.rollout_id, event.attempt))
        if event.call_id not in attempt.calls:
            attempt.calls.add(event.call_id)
            attempt.call_errors += event.error is not None
        if event.policy is not None and event.policy_version is not None:
            held = attempt.versions.get(event.policy, event.policy_version)
            attempt.versions[event.policy] = max(held, event.policy_version)
        return self.by_id[event.rollout_id]
