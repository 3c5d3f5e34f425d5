"""Where a training stands: computed from events and the gateway's answers. No IO.

Everything is counted by id, so that redelivered events, restarts and an earlier, interrupted run change nothing.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from leyden.analysis.failed_rules import RuleFailures, rule_failures
from leyden.events import (
    BatchFormed,
    CheckpointSaved,
    Event,
    GroupCredited,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    TaskEnqueued,
    TrainingStepCompleted,
)
from leyden.reading.model_wait import ModelWait, model_wait
from leyden.trainer.core.step_metrics import StepMetric
from leyden.training.gateway import Queue
from leyden.training.results import Best, HeldOut, Update
from leyden.training.schedule import Schedule, Standing
from leyden.training.task_set import TaskName, TaskSet


@dataclass
class _Enqueued:
    name: TaskName
    rollout_ids: tuple[str, ...]


@dataclass
class TrainState:
    """Feed it with `see` and `see_version`; ask it for `standing`, `updates`, `held_out` and the rest."""

    schedule: Schedule
    tasks: TaskSet
    policy: str = "policy"
    began: float = field(default_factory=time.monotonic)
    phase: str = "starting"
    version: int | None = None
    queue: Queue = field(default_factory=lambda: Queue(0, 0, 0))
    model: ModelWait = field(default_factory=lambda: model_wait([]))
    lag: dict[str, int] = field(default_factory=dict)
    steps: dict[int, TrainingStepCompleted] = field(default_factory=dict)
    live_at: dict[int, float] = field(default_factory=dict)
    """Version → seconds from the start until it was first live."""
    ended: dict[tuple[str, int], RolloutEnded] = field(default_factory=dict)
    credited: dict[str, GroupCredited] = field(default_factory=dict)
    checkpoints: dict[int, CheckpointSaved] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _enqueued: dict[str, _Enqueued] = field(default_factory=dict)
    """Group id → what it was enqueued for."""
    _held_out_rollouts: set[str] = field(default_factory=set)
    _repeated_at: dict[tuple[int, int], int] = field(default_factory=dict)
    """(version, index) of a held-out task that failed → its repetition that did; a later one is wanted."""
    _batched: set[str] = field(default_factory=set)
    """Ids of groups that a batch has."""
    _formed: int = 0
    _given: dict[str, float] = field(default_factory=dict)
    """Event id of a reward → its contribution."""
    _completed: dict[str, RewardsCompleted] = field(default_factory=dict)
    """Rollout id → its newest list of rewards."""
    _news_at: float = field(default_factory=time.monotonic)

    def see(self, event: Event) -> None:
        """Add one event."""
        self._news_at = time.monotonic()
        match event:
            case TaskEnqueued():
                self.see_enqueued(event.task.task_id, event.group_id, event.rollout_ids)
            case RolloutEnded():
                self.ended[(event.rollout_id, event.attempt)] = event
            case RewardAssigned():
                self._given[event.event_id] = event.value * event.weight
            case RewardsCompleted():
                known = self._completed.get(event.rollout_id)
                if known is None or (event.attempt, event.revision) >= (known.attempt, known.revision):
                    self._completed[event.rollout_id] = event
            case _:
                self._see_training(event)

    def see_enqueued(self, task_id: str, group_id: str, rollout_ids: Sequence[str]) -> None:
        """Record a task; those of others are ignored."""
        if (name := self.tasks.parse(task_id)) is not None:
            self._enqueued[group_id] = _Enqueued(name, tuple(rollout_ids))
            if name.held_out:
                self._held_out_rollouts |= set(rollout_ids)

    def repeat_failed_evaluation(self) -> None:
        """Have the held-out tasks that failed at the last version evaluated again. Call it when a training goes on."""
        version = self.trained_version
        failed = {end.rollout_id for end in self.final_ends if end.status == "failed"}
        newest = self._newest().get(version, {})
        self._repeated_at = {
            (version, index): one.name.again for index, one in newest.items() if failed & set(one.rollout_ids)
        }

    def to_evaluate(self, version: int) -> dict[int, int]:
        """Index of each held-out task to enqueue for `version` → how many times it was enqueued before."""
        newest = self._newest().get(version, {})
        wanted = {index: 0 for index in range(len(self.tasks.held_out)) if index not in newest}
        return wanted | {index: one.name.again + 1 for index, one in newest.items() if self._is_to_repeat(version, one)}

    def _see_training(self, event: Event) -> None:
        if getattr(event, "policy", None) != self.policy:
            return
        match event:
            case GroupCredited() if not event.credit:
                self.credited[event.group_id] = event
            case BatchFormed() if not event.credit:
                self._formed = max(self._formed, event.step)
                self._batched |= {group.group_id for group in event.groups}
            case TrainingStepCompleted():
                self.steps[event.step] = event
            case CheckpointSaved():
                self.checkpoints[event.version] = event
            case _:
                return

    def see_version(self, version: int | None) -> None:
        """Record the live version, as the gateway reports it."""
        self.version = version
        if version is not None:
            self.live_at.setdefault(version, self.elapsed_s)

    def note(self, text: str) -> None:
        """Add a note for the view and the report, unless it repeats the last one."""
        if self.notes[-1:] != [text]:
            self.notes.append(text)

    def note_once(self, text: str) -> None:
        """Add a note unless it was ever there."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def elapsed_s(self) -> float:
        """Seconds since this run began."""
        return time.monotonic() - self.began

    @property
    def trained_version(self) -> int:
        """The version after the last update; an update that changes no weight makes none."""
        return self.steps[max(self.steps)].version if self.steps else 0

    @property
    def standing(self) -> Standing:
        """Everything that the schedule decides by."""
        steps = max(self.steps, default=0)
        training = {group: one for group, one in self._enqueued.items() if not one.name.held_out}
        sampled = Counter(one.name.number for one in training.values())
        fresh = steps - self.schedule.max_staleness
        evaluations = self._evaluations()
        usable = (g for g, one in training.items() if one.name.number > fresh and self._is_usable(g))
        return Standing(
            steps=steps,
            trained_version=self.trained_version,
            live_version=self.version,
            sampled=sampled,
            open_groups=sum(group not in self.credited for group in training),
            usable_groups=sum(1 for _ in usable),
            is_training=self._formed > steps,
            evaluating=frozenset(evaluations),
            evaluated=frozenset(self._evaluated(evaluations)),
            quiet_s=time.monotonic() - self._news_at,
        )

    @property
    def sampled(self) -> int:
        """Number of training tasks enqueued so far."""
        return 1 + max((one.name.index for one in self._enqueued.values() if not one.name.held_out), default=-1)

    @property
    def updates(self) -> list[Update]:
        """The updates made, in order."""
        return [_update(self.steps[step]) for step in sorted(self.steps)]

    @property
    def held_out(self) -> list[HeldOut]:
        """Complete evaluations, by version."""
        evaluated = self._evaluated(self._evaluations())
        return [self._held_out(version, evaluated[version]) for version in sorted(evaluated)]

    @property
    def scores(self) -> dict[int, float]:
        """Version → its mean reward: on held-out tasks, or without those of the rollouts that were sampled from it."""
        if self.tasks.held_out:
            return {one.version: one.mean for one in self.held_out if one.mean is not None}
        found: dict[int, float] = {}
        for step in sorted(self.steps):
            before = self.steps[step - 1].version if step > 1 and step - 1 in self.steps else 0
            found.setdefault(before, self.steps[step].metrics[StepMetric.REWARD_MEAN])
        return found

    @property
    def best(self) -> Best | None:
        """The best measured version, the earliest of equal ones; without its weights' folder."""
        scores = self.scores
        if not scores:
            return None
        version = max(sorted(scores), key=lambda one: scores[one])
        return Best(version, scores[version], None)

    @property
    def rollouts(self) -> tuple[int, int]:
        """(ended, enqueued) of the training."""
        done = {rollout for (rollout, _), end in self.ended.items() if end.final}
        all_of_them = [rollout for one in self._enqueued.values() for rollout in one.rollout_ids]
        return sum(rollout in done for rollout in all_of_them), len(all_of_them)

    @property
    def rules(self) -> RuleFailures:
        """Reward rules that failed."""
        return rule_failures(self._completed.values())

    @property
    def left_out(self) -> Counter[str]:
        """Why training rollouts were left out → how many; validation rollouts are left out as they should be."""
        return Counter(
            reason
            for group, credit in self.credited.items()
            if group in self._enqueued and not self._enqueued[group].name.held_out
            for reason in credit.left_out.values()
        )

    @property
    def final_ends(self) -> Iterator[RolloutEnded]:
        """The final end of each rollout."""
        return (end for end in self.ended.values() if end.final)

    def is_held_out(self, rollout_id: str) -> bool:
        """Whether the rollout is one of an evaluation."""
        return rollout_id in self._held_out_rollouts

    def _is_usable(self, group_id: str) -> bool:
        credit = self.credited.get(group_id)
        return (
            credit is not None and credit.sequences > 0 and not credit.zero_variance and group_id not in self._batched
        )

    def _newest(self) -> dict[int, dict[int, _Enqueued]]:
        """Version → index → the held-out task as it was enqueued last."""
        found: dict[int, dict[int, _Enqueued]] = {}
        for one in self._enqueued.values():
            if (name := one.name).held_out:
                of_version = found.setdefault(name.number, {})
                known = of_version.get(name.index)
                if known is None or name.again > known.name.again:
                    of_version[name.index] = one
        return found

    def _is_to_repeat(self, version: int, newest: _Enqueued) -> bool:
        known = self._repeated_at.get((version, newest.name.index))
        return known is not None and newest.name.again <= known

    def _evaluations(self) -> dict[int, list[str]]:
        """Version → the rollouts of its evaluation, once all its tasks are enqueued."""
        wanted = len(self.tasks.held_out)
        return {
            version: [rollout for one in some.values() for rollout in one.rollout_ids]
            for version, some in self._newest().items()
            if len(some) >= wanted and not any(self._is_to_repeat(version, one) for one in some.values())
        }

    def _evaluated(self, evaluations: Mapping[int, list[str]]) -> dict[int, list[str]]:
        """Those of `evaluations` whose rollouts are all judged."""
        return {v: rollouts for v, rollouts in evaluations.items() if all(map(self._is_judged, rollouts))}

    def _is_judged(self, rollout_id: str) -> bool:
        """Whether all rewards of its final attempt are known."""
        completed = self._completed.get(rollout_id)
        if completed is None:
            return False
        end = self.ended.get((rollout_id, completed.attempt))
        return end is not None and end.final and all(one in self._given for one in completed.reward_ids)

    def _held_out(self, version: int, rollouts: list[str]) -> HeldOut:
        named = [self._completed[rollout].reward_ids for rollout in rollouts]
        rewards = [sum(self._given[one] for one in ids) for ids in named if ids]
        return HeldOut(version, sum(rewards) / len(rewards) if rewards else None, len(rollouts), len(rewards))


def _update(step: TrainingStepCompleted) -> Update:
    metrics = step.metrics
    return Update(
        number=step.step,
        reward=metrics[StepMetric.REWARD_MEAN],
        version=step.version,
        groups=round(metrics.get(StepMetric.GROUPS, 0)),
        flat=metrics.get(StepMetric.ZERO_VARIANCE, 0.0),
        learned=not metrics.get(StepMetric.SKIPPED, 0.0),
    )
