"""Makers of what credit consumes, and a publisher that keeps what it is given. For the tests of credit."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from leyden.events import (
    Choice,
    Event,
    Evidence,
    Failure,
    FailureClass,
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
from leyden.events.codec import EVENTS_BY_TOPIC, encode
from leyden.ids import derive, rollout_id_of
from leyden.kafka import Delivered, Outgoing

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
    ended_after_s: float = 60.0,
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
        task=Task.model_validate({"task_id": "t", "mode": mode}),
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
    )
    return [*calls, ended, settled, *rewards, judged]


def delivered(events: Iterable[Event]) -> list[Delivered[Event]]:
    """The events as records, each at an offset of its own topic."""
    topics = {kind: topic for topic, kinds in EVENTS_BY_TOPIC.items() for kind in kinds}
    offsets: dict[str, int] = {}
    records = []
    for event in events:
        topic = topics[type(event)]
        offset = offsets[topic] = offsets.get(topic, -1) + 1
        headers = {"traceparent": f"00-{event.event_id}-00f067aa0ba902b7-01"}
        records.append(Delivered(event, topic, "key", 0, offset, f"{topic}/0/{offset}", headers))
    return records


class Crash(Exception):
    """The process dies here."""


class FakePublisher:
    """Keeps what was published, as bytes, in order. `crash_at` n: the n-th call publishes and then the process dies."""

    def __init__(self, crash_at: int | None = None) -> None:
        self.published: list[Outgoing] = []
        self.crash_at = crash_at
        self._calls = 0

    async def publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        self.published += outgoing
        self._calls += 1
        if self._calls == self.crash_at:
            raise Crash

    async def publish_raw(self, topic: str, key: str, value: bytes, headers: dict[str, str] | None = None) -> None:
        raise NotImplementedError

    @property
    def values(self) -> list[bytes]:
        return [encode(one.event) for one in self.published]

    @property
    def sequences(self) -> list[SequenceCredited]:
        return [one.event for one in self.published if isinstance(one.event, SequenceCredited)]

    @property
    def groups(self) -> list[GroupCredited]:
        return [one.event for one in self.published if isinstance(one.event, GroupCredited)]
