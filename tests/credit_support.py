"""Makers of what credit consumes, and a publisher that keeps what it is given. For the tests of credit."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from fakes import TOPIC_OF, FakePublisher, FakeReading
from leyden.clock import Clock, ManualClock
from leyden.credit.core.section import CreditSection
from leyden.credit.handlers import CreditHandlers
from leyden.credit.ports import OpenCount, Stores
from leyden.events import (
    Choice,
    Event,
    Evidence,
    Failure,
    FailureClass,
    GroupClosed,
    GroupCredited,
    ModelCallRecorded,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    Sampling,
    SequenceCredited,
    Task,
    pack_floats,
    pack_ints,
)
from leyden.ids import derive, rollout_id_of
from leyden.kafka import Delivered, Outgoing
from leyden.state import MemoryEvidenceStore

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def rollout(index: int, task: str = "task") -> str:
    return rollout_id_of(task, index)


def call(
    call_id: str,
    prompt: Sequence[int],
    *responses: Sequence[int],
    rollout_id: str | None = None,
    attempt: int = 0,
    at: float = 0.0,
    policy: str | None = "p",
    version: int | None = 3,
    temperature: float = 1.0,
    error: str | None = None,
) -> ModelCallRecorded:
    choices = [
        Choice(
            index=index,
            token_ids=pack_ints(response),
            logprobs=pack_floats([-0.5 - token / 1000 for token in response]),
            message={"role": "assistant", "content": "text"},
        )
        for index, response in enumerate(responses)
    ]
    return ModelCallRecorded(
        event_id=derive("call", call_id),
        event_time=T0,
        producer="gateway",
        call_id=call_id,
        rollout_id=rollout_id or rollout(0),
        attempt=attempt,
        route="/v1/chat/completions",
        requested_model="m",
        policy=policy,
        policy_version=version,
        request={"messages": [{"role": "user", "content": "hello"}]},
        sampling=Sampling(temperature=temperature),
        prompt_token_ids=pack_ints(prompt),
        choices=choices,
        started_at=T0 + timedelta(seconds=at),
        latency_s=0.1,
        error=error,
    )


def reward(value: float, rule: str = "outcome", of: ModelCallRecorded | None = None, **changes: Any) -> RewardAssigned:
    fields: dict[str, Any] = {"rollout_id": rollout(0), "attempt": 0, "weight": 1.0} | changes
    call_id = of.call_id if of else None
    evidence = Evidence(kind="call", id=of.call_id) if of else Evidence(kind="rollout", id=fields["rollout_id"])
    return RewardAssigned(
        event_id=derive("reward", fields["rollout_id"], fields["attempt"], rule, call_id),
        event_time=T0,
        producer="reward",
        rule=rule,
        name=rule,
        value=value,
        evidence=evidence,
        call_id=call_id,
        **fields,
    )


def finished(
    calls: Sequence[ModelCallRecorded],
    rewards: Sequence[RewardAssigned],
    rollout_id: str | None = None,
    attempt: int = 0,
    group_size: int = 1,
    group_id: str = "g",
    final: bool = True,
    failure: FailureClass | None = None,
    complete: bool = True,
    failed_rules: Sequence[str] = (),
    mode: str = "train",
    task_id: str = "t",
    ended_after_s: float = 60.0,
    horizon_s: float = 0.0,
) -> list[Event]:
    """Every event of one attempt, in the order in which they happen."""
    rollout_id = rollout_id or rollout(0)
    about: dict[str, Any] = {"rollout_id": rollout_id, "attempt": attempt, "event_time": T0}
    ended = RolloutEnded(
        **about | {"event_time": T0 + timedelta(seconds=ended_after_s)},
        event_id=derive("ended", rollout_id, attempt),
        producer="gateway",
        status="failed" if failure else "succeeded",
        failure=Failure(failure_class=failure) if failure else None,
        final=final,
        task=Task.model_validate({"task_id": task_id, "mode": mode}),
        group_id=group_id,
        group_size=group_size,
        call_ids=sorted(c.call_id for c in calls),
        started_at=T0,
    )
    settled = RolloutSettled(
        **about,
        event_id=derive("settled", rollout_id, attempt),
        producer="reward",
        call_ids=sorted(c.call_id for c in calls),
        span_ids=[],
        complete=complete,
    )
    judged = RewardsCompleted(
        **about,
        event_id=derive("judged", rollout_id, attempt),
        producer="reward",
        reward_ids=sorted(r.event_id for r in rewards),
        failed_rules=list(failed_rules),
        late_horizon_s=horizon_s,
    )
    return [*calls, ended, settled, *rewards, judged]


def one_rollout(
    index: int,
    value: float | None,
    size: int,
    turns: int = 2,
    policy: str = "p",
    task: str = "task",
    version: int = 3,
    **changes: Any,
) -> list[Event]:
    """A rollout of some turns that continue each other exactly, worth `value` (None: nothing judged it)."""
    about: dict[str, Any] = {"rollout_id": rollout(index, task), "attempt": changes.get("attempt", 0)}
    prompt, calls = [index, 1], []
    for turn in range(turns):
        name = f"{task}-{index}-{about['attempt']}-{turn}"
        calls.append(call(name, prompt, [10 + turn, 20], at=turn, policy=policy, version=version, **about))
        prompt = [*prompt, 10 + turn, 20, 7]
    rewards = [reward(value, **about)] if value is not None else []
    changes = {"ended_after_s": 60 + index} | changes
    return finished(calls, rewards, rollout_id=about["rollout_id"], group_size=size, **changes)


def late_rewards(
    events: Sequence[Event], *values: float, after_s: float = 100.0, horizon_s: float | None = None
) -> list[Event]:
    """One more reward for each of `values`, `after_s` after the end of the attempt that `events` are about.

    `horizon_s` is what these say; None: the same as the first.
    """
    [first] = [event for event in events if isinstance(event, RewardsCompleted)]
    [ended] = [event for event in events if isinstance(event, RolloutEnded)]
    at, known = ended.event_time + timedelta(seconds=after_s), list(first.reward_ids)
    found: list[Event] = []
    for revision, value in enumerate(values, start=1):
        given = reward(value, rule=f"late-{revision}", rollout_id=first.rollout_id, attempt=first.attempt)
        known = sorted([*known, given.event_id])
        changes = {
            "event_id": derive("judged", first.rollout_id, first.attempt, revision),
            "event_time": at,
            "reward_ids": known,
            "revision": revision,
            "late_horizon_s": first.late_horizon_s if horizon_s is None else horizon_s,
        }
        found += [given.model_copy(update={"event_time": at}), first.model_copy(update=changes)]
    return found


def delivered(events: Iterable[Event]) -> list[Delivered[Event]]:
    """The events as records, each at an offset of its own topic."""
    offsets: dict[str, int] = {}
    records = []
    for event in events:
        topic = TOPIC_OF[type(event)]
        offset = offsets[topic] = offsets.get(topic, -1) + 1
        headers = {"traceparent": f"00-{event.event_id}-00f067aa0ba902b7-01"}
        records.append(Delivered(event, topic, "key", 0, offset, f"{topic}/0/{offset}", headers))
    return records


class Crash(Exception):
    """The process dies here."""


class GroupLog:
    """Topic groups.v1 and how far credit has committed it."""

    def __init__(self) -> None:
        self.records: list[GroupClosed] = []
        self.committed = 0


class CreditPublisher(FakePublisher):
    """What was published: transitions in `published`, groups' records in `log`, from which they are read back.

    `crash_at` n: the n-th call that has something to publish publishes it, and then the process dies.
    """

    def __init__(self, crash_at: int | None = None, log: GroupLog | None = None) -> None:
        super().__init__()
        self.log = log or GroupLog()
        self.crash_at = crash_at
        self._calls = 0

    async def publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        await super().publish_all([one for one in outgoing if not isinstance(one.event, GroupClosed)])
        self.log.records += [one.event for one in outgoing if isinstance(one.event, GroupClosed)]
        self._calls += bool(outgoing)
        if outgoing and self._calls == self.crash_at:
            raise Crash

    @property
    def sequences(self) -> list[SequenceCredited]:
        return self.of(SequenceCredited)

    @property
    def groups(self) -> list[GroupCredited]:
        return self.of(GroupCredited)


class MemoryOpenSubjects:
    """`OpenSubjects` in memory."""

    def __init__(self) -> None:
        self.since: dict[str, datetime] = {}

    async def seen(self, subjects: Sequence[str], now: datetime) -> None:
        for subject in subjects:
            self.since.setdefault(subject, now)

    async def gone(self, subjects: Sequence[str]) -> None:
        for subject in subjects:
            self.since.pop(subject, None)

    async def before(self, moment: datetime, limit: int) -> list[str]:
        return sorted((s for s, at in self.since.items() if at <= moment), key=lambda s: self.since[s])[:limit]

    async def count(self) -> OpenCount:
        return OpenCount(len(self.since), min(self.since.values(), default=None))


class MemoryBacklog:
    """`Backlog` in memory, on a clock that the test moves."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = T0

    async def mark_behind(self, for_s: float) -> None:
        self._until = self._clock.now() + timedelta(seconds=for_s)

    async def behind(self) -> bool:
        return self._clock.now() < self._until


def memory_stores(clock: Clock | None = None) -> Stores:
    """All stores of credit, in memory."""
    return Stores(
        attempts=MemoryEvidenceStore(),
        groups=MemoryEvidenceStore(),
        open_attempts=MemoryOpenSubjects(),
        open_groups=MemoryOpenSubjects(),
        deadlines=MemoryOpenSubjects(),
        backlog=MemoryBacklog(clock or ManualClock(T0)),
    )


class CreditLoop:
    """Credit on fakes, with its own records read back from the log after every batch, as Kafka would bring them."""

    def __init__(
        self,
        publisher: CreditPublisher,
        stores: Stores | None = None,
        section: CreditSection | None = None,
        clock: Clock | None = None,
        name: str = "",
    ) -> None:
        self.clock = clock or ManualClock(T0)
        self.publisher = publisher
        self.stores = stores or memory_stores(self.clock)
        self.reading = FakeReading()
        self.handlers = CreditHandlers(self.stores, publisher, section or CreditSection(), self.clock, name=name)

    async def on_batch(self, batch: Sequence[Delivered[Event]]) -> None:
        """A batch of other topics, then what it adds to groups.v1."""
        await self.handlers.on_batch(batch)
        await self.read_back()

    async def read_back(self) -> None:
        """Consume and commit what is new in groups.v1."""
        log = self.publisher.log
        while log.committed < len(log.records):
            end = len(log.records)
            await self.handlers.on_batch(delivered(log.records[log.committed : end]))
            log.committed = end
