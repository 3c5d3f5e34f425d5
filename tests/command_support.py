"""A small recorded group, event by event, and a log of it in memory: for tests of commands that read the log."""

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from leyden.events import (
    Choice,
    Event,
    Evidence,
    GroupCredited,
    ModelCallRecorded,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    RolloutStarted,
    Sampling,
    SequenceCredited,
    SpanKind,
    SpanRecorded,
    Task,
    ToolCall,
    Transition,
    pack_floats,
    pack_ints,
)
from leyden.events.codec import EVENTS_BY_TOPIC, MODEL_CALLS, encode
from leyden.ids import derive, rollout_id_of
from leyden.reading import Recorded

T0 = datetime(2026, 1, 1, tzinfo=UTC)
GROUP = "task-1"
A, B = rollout_id_of(GROUP, 0), rollout_id_of(GROUP, 1)
ABOUT = {"event_time": T0, "producer": "test"}
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}]
ASK = {"role": "user", "content": "How high is the Zugspitze?"}
CALL_TOOL = {
    "role": "assistant",
    "content": None,
    "refusal": None,
    "tool_calls": [
        {"id": "tool-1", "type": "function", "function": {"name": "search", "arguments": '{"query": "Zugspitze"}'}}
    ],
}
TOOL_SAID = {"role": "tool", "tool_call_id": "tool-1", "content": "2,962 m"}
ANSWER = {"role": "assistant", "content": "It is 2,962 m high.", "tool_calls": []}


def call(
    call_id: str,
    rollout_id: str,
    prompt: list[int],
    response: list[int],
    messages: list[dict[str, Any]],
    message: dict[str, Any],
    **changes: Any,
) -> ModelCallRecorded:
    fields: dict[str, Any] = {
        "event_id": derive("call", call_id),
        "call_id": call_id,
        "rollout_id": rollout_id,
        "trace_id": f"{rollout_id}0000",
        "route": "/v1/chat/completions",
        "requested_model": "m",
        "policy": "p",
        "policy_version": 3,
        "request": {"messages": messages, "tools": TOOLS},
        "sampling": Sampling(temperature=1.0),
        "prompt_token_ids": pack_ints(prompt),
        "choices": [
            Choice(
                index=0,
                token_ids=pack_ints(response),
                logprobs=pack_floats([-0.5] * len(response)),
                finish_reason="stop",
                message=message,
            )
        ],
        "started_at": T0 + timedelta(seconds=len(prompt)),
        "latency_s": 0.25,
    }
    return ModelCallRecorded(**ABOUT | fields | changes)


def calls_of_a() -> list[ModelCallRecorded]:
    """A tool call and the answer: one lineage of two actions."""
    return [
        call("a1", A, [1, 2, 3], [4, 5], [{"role": "system", "content": "Be brief."}, ASK], CALL_TOOL),
        call(
            "a2", A, [1, 2, 3, 4, 5, 6], [7, 8, 9],
            [{"role": "system", "content": "Be brief."}, ASK, CALL_TOOL, TOOL_SAID], ANSWER,
        ),
    ]  # fmt: skip


def call_of_b() -> ModelCallRecorded:
    guess = {"role": "assistant", "content": "High."}
    return call("b1", B, [1, 2], [3], [{"role": "user", "content": [{"type": "text", "text": "How high?"}]}], guess)


def tool_span() -> SpanRecorded:
    return SpanRecorded(
        **ABOUT,
        event_id=derive("span", "tool"),
        trace_id=f"{A}0000",
        span_id="00f067aa0ba902b7",
        rollout_id=A,
        kind=SpanKind.TOOL_CALL,
        dialect="gen_ai",
        name="execute_tool search",
        status="ok",
        start_unix_nano=1_000,
        end_unix_nano=500_001_000,
        tool=ToolCall(name="search", call_id="tool-1", arguments={"query": "Zugspitze"}, result="2,962 m"),
    )


def reward(rollout_id: str, rule: str, value: float, evidence: Evidence, **changes: Any) -> RewardAssigned:
    return RewardAssigned(
        **ABOUT | {
            "event_id": derive("reward", rollout_id, rule, evidence.id),
            "rollout_id": rollout_id,
            "attempt": 0,
            "rule": rule,
            "name": rule,
            "value": value,
            "evidence": evidence,
        } | changes
    )  # fmt: skip


def outcome(rollout_id: str, value: float) -> RewardAssigned:
    return reward(rollout_id, "outcome", value, Evidence(kind="rollout", id=rollout_id))


def completed(rollout_id: str, rewards: Iterable[RewardAssigned], **changes: Any) -> RewardsCompleted:
    ids = sorted(one.event_id for one in rewards)
    fields: dict[str, Any] = {"event_id": derive("completed", rollout_id, changes.get("revision", 0)), "attempt": 0}
    return RewardsCompleted(**ABOUT | fields | {"rollout_id": rollout_id, "reward_ids": ids} | changes)


def started(rollout_id: str, **changes: Any) -> RolloutStarted:
    attempt = changes.get("attempt", 0)
    fields: dict[str, Any] = {"event_id": derive("started", rollout_id, attempt), "attempt": 0, "task_id": GROUP}
    return RolloutStarted(**ABOUT | fields | {"rollout_id": rollout_id, "group_id": GROUP, "group_size": 2} | changes)


def ended(rollout_id: str, call_ids: list[str], **changes: Any) -> RolloutEnded:
    fields: dict[str, Any] = {
        "event_id": derive("ended", rollout_id, changes.get("attempt", 0)),
        "event_time": T0 + timedelta(seconds=10),
        "rollout_id": rollout_id,
        "attempt": 0,
        "status": "succeeded",
        "task": Task(task_id=GROUP, input={"question": "?"}, metadata={"answer": 2962}),
        "group_id": GROUP,
        "group_size": 2,
        "call_ids": sorted(call_ids),
        "span_count": 1,
        "started_at": T0,
    }
    return RolloutEnded(**ABOUT | fields | changes)


def settled(rollout_id: str, call_ids: list[str], **changes: Any) -> RolloutSettled:
    fields: dict[str, Any] = {"event_id": derive("settled", rollout_id), "attempt": 0, "rollout_id": rollout_id}
    return RolloutSettled(**ABOUT | fields | {"call_ids": call_ids, "span_ids": [], "complete": True} | changes)


def sequence(
    calls: list[ModelCallRecorded],
    origins: list[str],
    advantage: float,
    place: tuple[int, int],
    total: float,
    **changes: Any,
) -> SequenceCredited:
    """The calls as one lineage: each prompt holds all that came before."""
    last = calls[-1]
    tokens = last.prompt_token_ids + last.choices[0].token_ids
    transitions, logprobs = [], [0.0] * (len(tokens) // 4)
    for one, origin in zip(calls, origins, strict=True):
        start = len(one.prompt_token_ids) // 4
        end = start + len(one.choices[0].token_ids) // 4
        logprobs[start:end] = [-0.5] * (end - start)
        transitions.append(
            Transition(
                call_id=one.call_id, start=start, end=end, policy_version=3, temperature=1.0,
                reward=total if one is last else 0.0, return_=total, advantage=advantage, origin=origin,
            )
        )  # fmt: skip
    key = (changes.get("credit", ""), changes.get("revision", 0))
    fields: dict[str, Any] = {
        "event_id": derive("sequence", *key, last.rollout_id),
        "rollout_id": last.rollout_id,
        "attempt": 0,
        "policy": "p",
        "group_id": GROUP,
        "sequence_index": place[0],
        "group_sequences": place[1],
        "token_ids": tokens,
        "behaviour_logprobs": pack_floats(logprobs),
        "transitions": transitions,
        "rollout_reward": total,
    }
    return SequenceCredited(**ABOUT | fields | changes)


def group_end(sequences: int, **changes: Any) -> GroupCredited:
    key = (changes.get("credit", ""), changes.get("revision", 0), changes.get("group_id", GROUP))
    fields: dict[str, Any] = {
        "event_id": derive("group", *key),
        "policy": "p",
        "group_id": GROUP,
        "sequences": sequences,
        "members": 2,
        "reward_mean": 0.5,
        "reward_std": 0.7,
    }
    return GroupCredited(**ABOUT | fields | changes)


def credited(advantages: tuple[float, float] = (0.7, -0.7), **changes: Any) -> list[Event]:
    """The whole group as credit publishes it; origins are those that `FakeLog` gives."""
    origins = {one.call_id: f"{MODEL_CALLS}/0/{at}" for at, one in enumerate([*calls_of_a(), call_of_b()])}
    of_a = sequence(calls_of_a(), [origins["a1"], origins["a2"]], advantages[0], (0, 2), 1.0, **changes)
    of_b = sequence([call_of_b()], [origins["b1"]], advantages[1], (1, 2), 0.0, **changes)
    return [of_a, of_b, group_end(2, **changes)]


def life(rollout_id: str, calls: list[ModelCallRecorded], value: float) -> list[Event]:
    """Everything of a rollout before its credit."""
    ids = [one.call_id for one in calls]
    given = outcome(rollout_id, value)
    return [started(rollout_id), *calls, ended(rollout_id, ids), settled(rollout_id, ids), given,
            completed(rollout_id, [given])]  # fmt: skip


class FakeLog:
    """`Log`, of one partition a topic, in memory."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = list(events)

    def add(self, event: Event) -> None:
        """Write one more event."""
        self._events.append(event)

    async def read(
        self, topic: str, *, keys: Any = None, wanted: Any = None, seen: dict[int, int] | None = None, **_: Any
    ) -> AsyncIterator[Recorded]:
        kinds = EVENTS_BY_TOPIC[topic]
        for offset, event in enumerate(event for event in self._events if isinstance(event, kinds)):
            if seen is not None:
                if offset < seen.get(0, 0):
                    continue
                seen[0] = offset + 1
            key = key_of(event)
            if (keys is None or key in keys) and (wanted is None or wanted(key.encode(), encode(event))):
                yield Recorded(event, f"{topic}/0/{offset}", 0, offset, event.event_time)


def key_of(event: Event) -> str:
    """The key that the event's producer gives it."""
    if isinstance(event, SequenceCredited | GroupCredited):
        return f"{event.policy}/{event.group_id}"
    return str(getattr(event, "rollout_id", None) or getattr(event, "group_id", ""))
