"""Computes the state of every rollout from the log's events, in order, after the store has lost it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from leyden.events import Event, Failure, FailureClass, RolloutEnded, RolloutStarted, Task, TaskEnqueued
from leyden.gateway.core.rollouts import EndReport, RolloutSpec, RolloutState, Running, ended, specs_of
from leyden.ids import AttemptRef, is_rollout_id


@dataclass(frozen=True, slots=True)
class Restored:
    """The state of a rollout according to the log."""

    ref: AttemptRef
    """Its last attempt; for a queued rollout, the next one."""
    spec: RolloutSpec
    state: RolloutState
    status: str | None = None
    retry_at: datetime | None = None
    """When a queued rollout may be retried."""
    started_at: datetime | None = None
    runner: str | None = None
    end: bytes = b""
    """For a running rollout: the end to store with it, so that no other can come first."""
    ended_at: datetime | None = None

    def given_up(self, now: datetime) -> Self:
        """A running rollout, ended now, as its calls can no longer be counted; others unchanged."""
        if self.state is not RolloutState.RUNNING or self.started_at is None:
            return self
        stored = ended(Running(self.ref, self.spec, self.started_at, self.runner), _state_lost(), now)
        return replace(self, end=stored.model_dump_json().encode(), ended_at=now)


@dataclass(frozen=True, slots=True)
class _Open:
    attempt: int
    started: RolloutStarted | None
    """None while the rollout waits for this attempt."""
    retry_at: datetime | None = None


class RolloutLog:
    """The state in `rollouts.v1`. Memory: about 100 bytes per ended rollout, more for others."""

    def __init__(self) -> None:
        self._over: dict[bytes, tuple[int, bool]] = {}
        self._open: dict[str, _Open] = {}

    @property
    def ended(self) -> int:
        """Number of rollouts with a final end."""
        return len(self._over)

    def note(self, event: Event) -> None:
        """Add the topic's next event; those of a rollout come in order, possibly twice."""
        match event:
            case RolloutStarted() if _key(event.rollout_id) not in self._over:
                known = self._open.get(event.rollout_id)
                if known is None or event.attempt >= known.attempt:
                    self._open[event.rollout_id] = _Open(event.attempt, event)
            case RolloutEnded(final=True):
                self._open.pop(event.rollout_id, None)
                self._over[_key(event.rollout_id)] = (event.attempt, event.status == "succeeded")
            case RolloutEnded() if _key(event.rollout_id) not in self._over:
                known = self._open.get(event.rollout_id)
                if known is None or event.attempt >= known.attempt:
                    self._open[event.rollout_id] = _Open(event.attempt + 1, None, event.retry_at)
            case _:
                pass

    def of_task(self, event: TaskEnqueued) -> Iterator[Restored]:
        """The rollouts of a task."""
        for rollout_id, spec in specs_of(event):
            found = self._open.pop(rollout_id, None)
            if over := self._over.get(_key(rollout_id)):
                status = "succeeded" if over[1] else "failed"
                yield Restored(AttemptRef(rollout_id, over[0]), spec, RolloutState.ENDED, status)
            elif found is not None:
                yield _restored(rollout_id, spec, found)
            else:
                yield Restored(AttemptRef(rollout_id, 0), spec, RolloutState.QUEUED)

    def of_no_task(self) -> Iterator[Restored]:
        """Rollouts that agents started and did not end; call it after all tasks."""
        for rollout_id, found in self._open.items():
            if found.started is not None:
                started = found.started
                spec = RolloutSpec(
                    task=Task(task_id=started.task_id) if started.task_id else None,
                    group_id=started.group_id,
                    group_size=started.group_size,
                    project=started.project,
                    begun_by=started.begun_by,
                )
                yield _restored(rollout_id, spec, found)


def _state_lost() -> EndReport:
    """The end of an attempt that was running when the store lost its state; its calls can no longer be counted."""
    failure = Failure(
        failure_class=FailureClass.INFRASTRUCTURE, message="the gateway's store lost its state while the attempt ran"
    )
    return EndReport(status="failed", failure=failure)


def _restored(rollout_id: str, spec: RolloutSpec, found: _Open) -> Restored:
    ref = AttemptRef(rollout_id, found.attempt)
    if found.started is None:
        return Restored(ref, spec, RolloutState.QUEUED, retry_at=found.retry_at)
    started = found.started
    return Restored(ref, spec, RolloutState.RUNNING, started_at=started.event_time, runner=started.runner)


def _key(rollout_id: str) -> bytes:
    """Half as long as the id, where it is one of ours; other writers' ids may be any text."""
    return bytes.fromhex(rollout_id) if is_rollout_id(rollout_id) else rollout_id.encode()
