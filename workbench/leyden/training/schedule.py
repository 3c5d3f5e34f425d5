"""What a training does next: evaluate, sample tasks for an update, wait, or end. Pure.

Tasks of an update are sampled when the version before it is live, so that the trainer learns from its own version's
samples. Everything that a decision needs is in the log, so a training that was interrupted decides as if it had not
been.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

IDLE_S = 5.0
"""After this long without news, a trainer that lacks groups gets more tasks: some groups gave nothing to train."""
SLOW_S = 180.0
"""After this long, also one that should have enough groups."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The numbers of a training."""

    updates: int
    """Optimiser steps in all."""
    groups_per_step: int
    evaluate_every: int | None = None
    """Updates between two evaluations on held-out tasks, besides those before the first and after the last update.
    None: there are no held-out tasks."""
    max_staleness: int = 0
    """How many versions old samples may be. 0: sampling waits for training; 1: the next update's tasks are sampled
    meanwhile; and so on."""

    def evaluates(self, step: int) -> bool:
        """Whether the version after `step` is evaluated."""
        return self.evaluate_every is not None and (step % self.evaluate_every == 0 or step >= self.updates)

    def last_without_evaluation(self, step: int) -> int:
        """The last update that may be sampled before another evaluation, once `step` steps were made."""
        return next((n for n in range(step + 1, self.updates) if self.evaluates(n)), self.updates)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a training stands, as the log and the gateway tell."""

    steps: int = 0
    trained_version: int = 0
    """The version after the last step."""
    live_version: int | None = None
    sampled: Mapping[int, int] = field(default_factory=dict)
    """Update → number of tasks that were enqueued for it."""
    open_groups: int = 0
    """Groups of training tasks that are not credited yet."""
    usable_groups: int = 0
    """Credited groups with something to train that no batch has."""
    is_training: bool = False
    """Whether a batch was formed whose step is not complete."""
    evaluating: Set[int] = frozenset()
    """Versions whose evaluation was enqueued."""
    evaluated: Set[int] = frozenset()
    """Versions whose evaluation is complete."""
    quiet_s: float = 0.0
    """Seconds since the last news of rollouts, groups or steps."""


@dataclass(frozen=True)
class Evaluate:
    """Enqueue the held-out tasks for the live version."""

    version: int


@dataclass(frozen=True)
class Sample:
    """Enqueue the next `tasks` training tasks for `update`."""

    update: int
    tasks: int


@dataclass(frozen=True)
class Wait:
    """Nothing to do until something happens."""

    reason: str


@dataclass(frozen=True)
class Finish:
    """All updates are made and evaluated."""


Action = Evaluate | Sample | Wait | Finish


def decide(schedule: Schedule, standing: Standing) -> Action:
    """The next action."""
    is_current = standing.live_version == standing.trained_version
    if not is_current and (schedule.max_staleness == 0 or standing.live_version is None):
        return Wait(f"version {standing.trained_version} to go live")
    if schedule.evaluates(standing.steps) and standing.trained_version not in standing.evaluated:
        return _evaluation(standing, is_current)
    if standing.steps >= schedule.updates:
        return Finish() if is_current else Wait(f"version {standing.trained_version} to go live")
    next_update = standing.steps + 1
    last = min(next_update + schedule.max_staleness, schedule.last_without_evaluation(standing.steps))
    for update in range(next_update, last + 1):
        if not standing.sampled.get(update):
            waiting = standing.usable_groups if update == next_update else 0
            return Sample(update, max(1, schedule.groups_per_step - waiting))
    return _until_the_step(schedule, standing, next_update)


def _evaluation(standing: Standing, is_current: bool) -> Action:
    if not is_current:
        return Wait(f"version {standing.trained_version} to go live")
    if standing.trained_version in standing.evaluating:
        return Wait("held-out rollouts")
    return Evaluate(standing.trained_version)


def _until_the_step(schedule: Schedule, standing: Standing, update: int) -> Action:
    """Wait for the trainer; give it more tasks if some groups gave it nothing to train."""
    if standing.is_training:
        return Wait("the trainer's step")
    if standing.open_groups:
        return Wait("rollouts and their rewards")
    lacking = schedule.groups_per_step - standing.usable_groups
    if standing.quiet_s < (IDLE_S if lacking > 0 else SLOW_S):
        return Wait("the trainer's batch")
    return Sample(update, max(1, lacking))
