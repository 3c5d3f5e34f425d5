"""The state of the training loop, from the log alone: `LoopState.see` adds events, `report` describes them. No IO."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import fmean

from leyden.analysis.failed_rules import rule_failures
from leyden.analysis.failures import masked
from leyden.analysis.loop_report import (
    CurvePoint,
    FailureLine,
    GroupsLine,
    LoopReport,
    ModelLine,
    PolicyLine,
    QueueLine,
    RuleFailureLine,
    StepLine,
    Throughput,
    WaitingGroup,
)
from leyden.analysis.rewards import TRAIN, VALIDATION, version_key
from leyden.analysis.rollouts import TOPICS, Rollouts, RolloutStatus, SeenRollout
from leyden.events import (
    BatchFormed,
    Event,
    GroupCredited,
    ModelCallRecorded,
    PolicyPromoted,
    PolicyServed,
    QueuePaused,
    QueueResumed,
    RewardsCompleted,
    TrainingStepCompleted,
    VersionRegistered,
)
from leyden.events.codec import MODELS, TRAINING_BATCHES, TRAINING_METRICS, TRANSITIONS
from leyden.events.promotions import Promotion
from leyden.ids import AttemptRef
from leyden.reading.model_wait import ModelWait
from leyden.trainer.core.step_metrics import StepMetric

WATCHED = (*TOPICS, TRANSITIONS, TRAINING_BATCHES, TRAINING_METRICS, MODELS)
"""Topics that say all of it."""
ALL_PROJECTS = "*"
NO_VERSION = "-"
WINDOW = timedelta(seconds=60)
"""Of the throughput."""
MAX_EXAMPLES = 5
TOKEN_BYTES = 4
WAITS_FOR = {
    RolloutStatus.QUEUED: "a runner",
    RolloutStatus.RUNNING: "the agent",
    RolloutStatus.RETRYING: "a retry",
}


@dataclass
class _Policy:
    registered: dict[int, VersionRegistered] = field(default_factory=dict)
    promotion: Promotion = field(default_factory=Promotion)
    replicas: dict[str, int] = field(default_factory=dict)


class LoopState:
    """Counts by id, so that redelivered events change nothing. Memory: about 2 kB per rollout."""

    def __init__(self) -> None:
        self.rollouts = Rollouts()
        self._steps: dict[tuple[str, int], TrainingStepCompleted] = {}
        self._groups: dict[tuple[str, str, str], GroupCredited] = {}
        self._judged: dict[AttemptRef, RewardsCompleted] = {}
        self._batched: set[str] = set()
        self._per_step: int | None = None
        self._policies: dict[str, _Policy] = {}
        self._paused: dict[str, tuple[datetime, bool]] = {}
        self._calls: dict[str, tuple[datetime, int]] = {}
        """Call of the last `WINDOW` → when it ended, and its sampled tokens."""

    def see(self, event: Event) -> None:
        """Add one event."""
        self.rollouts.see(event)
        match event:
            case ModelCallRecorded():
                ended = event.started_at + timedelta(seconds=event.latency_s)
                self._calls[event.call_id] = (ended, sum(len(c.token_ids) for c in event.choices) // TOKEN_BYTES)
            case RewardsCompleted():
                if event.ref not in self._judged or event.revision > self._judged[event.ref].revision:
                    self._judged[event.ref] = event
            case GroupCredited():
                name = (event.policy, event.credit, event.group_id)
                if name not in self._groups or event.revision > self._groups[name].revision:
                    self._groups[name] = event
            case BatchFormed():
                self._batched |= {group.group_id for group in event.groups}
                self._per_step = event.groups_per_step
            case TrainingStepCompleted():
                self._steps[event.policy, event.step] = event
                self._batched |= {*event.manifest.group_ids, *event.unusable}
            case VersionRegistered():
                self._policy(event.policy).registered[event.version] = event
            case PolicyPromoted():
                self._policy(event.policy).promotion.add(event)
            case PolicyServed():
                self._policy(event.policy).replicas[event.replica] = event.version
            case QueuePaused() | QueueResumed():
                whose = event.project or ALL_PROJECTS
                decided = (event.event_time, isinstance(event, QueuePaused))
                self._paused[whose] = max(self._paused.get(whose, decided), decided)
            case _:
                return

    def _policy(self, name: str) -> _Policy:
        return self._policies.setdefault(name, _Policy())

    def report(
        self, now: datetime, lag: dict[str, int], per_step: int | None = None, model: ModelWait | None = None
    ) -> LoopReport:
        """What is known at `now`. `per_step` is the run file's `groups_per_step`, used until a batch tells it.

        `model`: the calls that wait for an answer. The log does not have them.
        """
        return LoopReport(
            at=now,
            curve=self._curve(),
            steps=[step_line(self._steps[key]) for key in sorted(self._steps)],
            policies=[_policy_line(name, held) for name, held in sorted(self._policies.items())],
            queue=self._queue(now),
            groups=self._group_line(self._per_step or per_step, model.attempts if model else {}),
            failures=self._failures(),
            rule_failures=self._rule_failures(),
            throughput=self._throughput(now),
            model=model,
            lag=lag,
        )

    def models(self) -> list[ModelLine]:
        """Every registered version, and the base model of a policy that serves, oldest first."""
        curve = {(point.version, point.mode): point for point in self._curve()}
        made = {(one.policy, one.version): one for one in self._steps.values() if step_line(one).changed}
        found = []
        for name, held in sorted(self._policies.items()):
            live = set(held.replicas.values())
            for version in sorted({0, *held.registered, *live}):
                event, step = held.registered.get(version), made.get((name, version))
                states = ["live"] * (version in live) + ["promoted"] * (version == held.promotion.version > 0)
                found.append(
                    ModelLine(
                        version=f"{name}@{version}",
                        state=", ".join(states) or ("registered" if event else "base model"),
                        at=event.event_time if event else None,
                        step=step.step if step else None,
                        step_reward=step_line(step).reward if step else None,
                        held_out=_mean(curve.get((f"{name}@{version}", VALIDATION))),
                        reward=_mean(curve.get((f"{name}@{version}", TRAIN))),
                        weights=(event.merged_weights or event.adapter) if event else None,
                    )
                )
        return found

    def _curve(self) -> list[CurvePoint]:
        lots: dict[tuple[str, str], list[SeenRollout]] = {}
        for one in self.rollouts:
            if one.ended:
                lots.setdefault((one.mode, one.version or NO_VERSION), []).append(one)
        order = {VALIDATION: 0, TRAIN: 1}
        names = sorted(lots, key=lambda name: (order.get(name[0], 2), *version_key(name[1])))
        return [_point(mode, version, lots[mode, version]) for mode, version in names]

    def _queue(self, now: datetime) -> QueueLine:
        counts = Counter(one.status for one in self.rollouts)
        starts = [at for one in self.rollouts for a in one.attempts.values() if (at := a.started_at)]
        running = [one for one in self.rollouts if one.status is RolloutStatus.RUNNING]
        oldest = min(running, key=lambda one: one.newest.started_at or now, default=None)
        return QueueLine(
            queued=counts[RolloutStatus.QUEUED],
            running=counts[RolloutStatus.RUNNING],
            retrying=counts[RolloutStatus.RETRYING],
            succeeded=counts[RolloutStatus.SUCCEEDED],
            failed=counts[RolloutStatus.FAILED],
            validation=sum(one.mode == VALIDATION for one in self.rollouts),
            paused=sorted(whose for whose, (_, paused) in self._paused.items() if paused),
            longest_running_s=_since(oldest.newest.started_at, now) if oldest else None,
            longest_running=oldest.trace_id if oldest else None,
            claimed_s_ago=_since(max(starts), now) if starts else None,
        )

    def _group_line(self, per_step: int | None, calling: Mapping[str, float]) -> GroupsLine:
        credited = list(self._groups.values())
        done = {group.group_id for group in credited}
        members: dict[str, list[SeenRollout]] = {}
        for one in self.rollouts:
            if one.mode != VALIDATION and one.group_id and one.group_id not in done:
                members.setdefault(one.group_id, []).append(one)
        waiting = [_waiting(group_id, lot, calling) for group_id, lot in members.items()]
        waits_for: Counter[str] = Counter()
        for group in waiting:
            waits_for.update(group.waits_for)
        validation = {one.group_id for one in self.rollouts if one.mode == VALIDATION}
        trained = [group for group in credited if group.group_id not in validation]
        return GroupsLine(
            waiting=len(waiting),
            waits_for=dict(waits_for),
            examples=sorted(waiting, key=lambda group: (-group.finished, group.group_id))[:MAX_EXAMPLES],
            credited=len(trained),
            single=sum(group.members == 1 and len(group.left_out) == 0 for group in trained),
            flat=sum(group.zero_variance and group.sequences > 0 for group in trained),
            empty=sum(group.sequences == 0 for group in trained),
            left_out=dict(Counter(reason for group in trained for reason in group.left_out.values())),
            ready=sum(group.group_id not in self._batched and group.sequences > 0 for group in trained),
            per_step=per_step,
        )

    def _failures(self) -> list[FailureLine]:
        lots: dict[tuple[str, str], list[tuple[datetime, str, str, bool]]] = {}
        for one in self.rollouts:
            for number, attempt in one.attempts.items():
                if attempt.ended_at is not None and not attempt.succeeded:
                    message = attempt.failure.message if attempt.failure else ""
                    kind = attempt.failure.failure_class.value if attempt.failure else "agent_exception"
                    evidence = attempt.failure.evidence if attempt.failure else None
                    waited = bool(evidence and evidence.unanswered_calls)
                    entry = (attempt.ended_at, AttemptRef(one.rollout_id, number).trace_id, message, waited)
                    lots.setdefault((kind, masked(message)), []).append(entry)
        found = []
        for (kind, _), lot in lots.items():
            _, example, message, _ = max(lot)
            late = sum(waited for *_, waited in lot)
            line = FailureLine(failure_class=kind, count=len(lot), unanswered=late, message=message, example=example)
            found.append(line)
        return sorted(found, key=lambda one: (-one.count, one.failure_class))

    def _rule_failures(self) -> list[RuleFailureLine]:
        failed = rule_failures(self._judged.values()).failed
        return [
            RuleFailureLine(message=f"{one.rule}: {one.kind}: {one.message}", count=one.rollouts, example=one.example)
            for one in failed
        ]

    def _throughput(self, now: datetime) -> Throughput:
        begin = now - WINDOW
        self._calls = {call: held for call, held in self._calls.items() if held[0] >= begin}
        ended = [at for one in self.rollouts for a in one.attempts.values() if (at := a.ended_at) and at >= begin]
        minutes = WINDOW.total_seconds() / 60
        return Throughput(
            window_s=WINDOW.total_seconds(),
            rollouts_per_minute=len(ended) / minutes,
            calls_per_minute=len(self._calls) / minutes,
            tokens_per_second=sum(tokens for _, tokens in self._calls.values()) / WINDOW.total_seconds(),
        )


def _since(moment: datetime | None, now: datetime) -> float:
    return max(0.0, (now - (moment or now)).total_seconds())


def _point(mode: str, version: str, lot: list[SeenRollout]) -> CurvePoint:
    rewards = [reward for one in lot if (reward := one.newest.reward) is not None]
    return CurvePoint(
        version=version,
        mode=mode,
        rollouts=len(lot),
        rewarded=len(rewards),
        failed=sum(one.status is RolloutStatus.FAILED for one in lot),
        mean_reward=fmean(rewards) if rewards else None,
    )


def _mean(point: CurvePoint | None) -> float | None:
    return point.mean_reward if point is not None else None


def _policy_line(name: str, held: _Policy) -> PolicyLine:
    live = min(held.replicas.values(), default=None)
    promoted = held.promotion.version
    newest = max(promoted, *held.registered, *held.replicas.values(), 0)
    return PolicyLine(policy=name, newest=newest, promoted=promoted, live=live, replicas=len(held.replicas))


def _waiting(group_id: str, members: list[SeenRollout], calling: Mapping[str, float]) -> WaitingGroup:
    texts = [_waits_for(one, calling) for one in members]
    waits = Counter(text for text in texts if text is not None)
    size = max([len(members), *(one.group_size for one in members)])
    if size > len(members):
        waits["a runner"] += size - len(members)
    if not waits:
        waits["credit"] = len(members)
    return WaitingGroup(
        group_id=group_id,
        size=size,
        finished=texts.count(None),
        waits_for=dict(waits),
    )


def _waits_for(one: SeenRollout, calling: Mapping[str, float]) -> str | None:
    """What a rollout waits for before credit can use it; None if it has all.

    `calling`: trace ids of attempts with a model call that is not answered.
    """
    if not one.ended:
        if one.status is RolloutStatus.RUNNING and one.trace_id in calling:
            return "the model"
        return WAITS_FOR[one.status]
    if not one.newest.settled:
        return "its calls and spans"
    return "its rewards" if one.newest.revision < 0 else None


def step_line(event: TrainingStepCompleted) -> StepLine:
    """What is shown of a step."""
    metrics = event.metrics
    dropped = {name.rpartition("/")[2]: int(n) for name, n in metrics.items() if name.startswith("groups/dropped/")}
    return StepLine(
        policy=event.policy,
        step=event.step,
        version=event.version,
        at=event.event_time,
        reward=metrics.get(StepMetric.REWARD_MEAN, 0.0),
        groups=int(metrics.get(StepMetric.GROUPS, 0)),
        rollouts=int(metrics.get(StepMetric.ROLLOUTS, 0)),
        sequences=int(metrics.get(StepMetric.SEQUENCES, 0)),
        trained_tokens=int(metrics.get(StepMetric.ACTION_TOKENS, 0)),
        staleness_mean=metrics.get(StepMetric.STALENESS_MEAN, 0.0),
        staleness_max=metrics.get(StepMetric.STALENESS_MAX, 0.0),
        seconds=metrics.get(StepMetric.SECONDS_STEP, 0.0),
        changed=not metrics.get(StepMetric.SKIPPED, 0.0),
        dropped={reason: count for reason, count in dropped.items() if count},
        unusable=event.unusable,
    )
