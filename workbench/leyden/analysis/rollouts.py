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
    given: dict[str, float] = field(default_factory=dict)
    """Reward's event id → value × weight."""
    calls: set[str] = field(default_factory=set)
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

    def see(self, event: Event) -> None:
        """Add one event."""
        match event:
            case TaskEnqueued():
                self._enqueued(event)
            case RolloutStarted():
                self._started(event)
            case RolloutEnded():
                self._ended(event)
            case RolloutSettled():
                self._attempt(event.ref).settled = True
            case RewardAssigned():
                self._attempt(event.ref).given[event.event_id] = event.value * event.weight
            case RewardsCompleted():
                self._judged(event)
            case ModelCallRecorded():
                self._called(event)

    def _rollout(self, rollout_id: str) -> SeenRollout:
        return self.by_id.setdefault(rollout_id, SeenRollout(rollout_id))

    def _attempt(self, ref: AttemptRef) -> SeenAttempt:
        return self._rollout(ref.rollout_id).attempts.setdefault(ref.attempt, SeenAttempt())

    def _enqueued(self, event: TaskEnqueued) -> None:
        for rollout_id in event.rollout_ids:
            rollout = self._rollout(rollout_id)
            rollout.task_id, rollout.mode = event.task.task_id, event.task.mode
            rollout.group_id, rollout.group_size = event.group_id, len(event.rollout_ids)
            rollout.enqueued_at = event.event_time

    def _started(self, event: RolloutStarted) -> None:
        rollout = self._rollout(event.rollout_id)
        rollout.group_id, rollout.group_size = event.group_id, event.group_size
        rollout.task_id = rollout.task_id or event.task_id
        self._attempt(event.ref).started_at = event.event_time

    def _ended(self, event: RolloutEnded) -> None:
        rollout, attempt = self._rollout(event.rollout_id), self._attempt(event.ref)
        rollout.group_id, rollout.group_size = event.group_id, event.group_size
        if event.task is not None:
            rollout.task_id, rollout.mode = event.task.task_id, event.task.mode
        attempt.started_at, attempt.ended_at = event.started_at, event.event_time
        attempt.succeeded, attempt.final, attempt.failure = event.status == "succeeded", event.final, event.failure

    def _judged(self, event: RewardsCompleted) -> None:
        attempt = self._attempt(event.ref)
        if event.revision > attempt.revision:
            attempt.revision, attempt.reward_ids = event.revision, frozenset(event.reward_ids)
            attempt.failed_rules = tuple(event.failed_rules)

    def _called(self, event: ModelCallRecorded) -> None:
        if event.rollout_id is None:
            return
        attempt = self._attempt(AttemptRef(event.rollout_id, event.attempt))
        attempt.calls.add(event.call_id)
        if event.policy is not None and event.policy_version is not None:
            held = attempt.versions.get(event.policy, event.policy_version)
            attempt.versions[event.policy] = max(held, event.policy_version)
