"""Recorded rollouts of a given shape: what credit finds in its topics. Deterministic; texts are as long as tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from leyden.events import (
    Choice,
    Event,
    Evidence,
    JsonObject,
    ModelCallRecorded,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    Usage,
    pack_floats,
    pack_ints,
)
from leyden.events.codec import MODEL_CALLS, REWARDS, ROLLOUTS
from leyden.ids import derive, rollout_id_of
from leyden.kafka import Outgoing

START = datetime(2026, 1, 1, tzinfo=UTC)
VOCABULARY = 49_152


@dataclass(frozen=True)
class Shape:
    """What every rollout looks like: a conversation, or calls that have nothing in common."""

    calls: int = 4
    prompt_tokens: int = 512
    """Of the first call, and of every call where `turn_tokens` is None."""
    response_tokens: int = 128
    turn_tokens: int | None = 16
    """What each later prompt adds to the conversation so far."""
    group_size: int = 8

    @property
    def sequences(self) -> int:
        """How many training sequences a rollout makes."""
        return self.calls if self.turn_tokens is None else 1


def rollout_events(index: int, shape: Shape) -> Iterator[Outgoing]:
    """Everything that was recorded of rollout number `index`, in the order of its happening."""
    rollout_id = rollout_id_of("benchmark", index)
    random = np.random.default_rng(index)
    ended_at = START + timedelta(seconds=index // shape.group_size)
    calls = list(_calls(rollout_id, random, ended_at, shape))
    about: dict[str, Any] = {"rollout_id": rollout_id, "attempt": 0, "event_time": ended_at}
    call_ids = sorted(call.call_id for call in calls)
    ended = RolloutEnded(
        event_id=derive("ended", rollout_id, 0), producer="gateway", status="succeeded", group_size=shape.group_size,
        group_id=f"group-{index // shape.group_size}", call_ids=call_ids, started_at=ended_at, **about,
    )  # fmt: skip
    settled = RolloutSettled(
        event_id=derive("settled", rollout_id, 0), producer="reward", call_ids=call_ids, span_ids=[], complete=True,
        **about,
    )  # fmt: skip
    outcome = RewardAssigned(
        event_id=derive("reward", rollout_id, 0), producer="reward", rule="emitted", name="outcome",
        value=float(random.integers(2)), evidence=Evidence(kind="rollout", id=rollout_id), **about,
    )  # fmt: skip
    completed = RewardsCompleted(
        event_id=derive("rewards-completed", rollout_id, 0), producer="reward", reward_ids=[outcome.event_id], **about
    )
    events: list[tuple[str, Event]] = [(MODEL_CALLS, call) for call in calls]
    events += [(ROLLOUTS, ended), (ROLLOUTS, settled), (REWARDS, outcome), (REWARDS, completed)]
    for topic, event in events:
        yield Outgoing(topic, rollout_id, event)


def _calls(rollout_id: str, random: np.random.Generator, at: datetime, shape: Shape) -> Iterator[ModelCallRecorded]:
    prompt = random.integers(0, VOCABULARY, shape.prompt_tokens, dtype=np.int32)
    for number in range(shape.calls):
        response = random.integers(0, VOCABULARY, shape.response_tokens, dtype=np.int32)
        call_id = derive("benchmark-call", rollout_id, number)
        message: JsonObject = {"role": "assistant", "content": "word " * shape.response_tokens}
        choice = Choice(
            index=0, token_ids=pack_ints(response), finish_reason="stop", message=message,
            logprobs=pack_floats(-random.random(shape.response_tokens, dtype=np.float32)),
        )  # fmt: skip
        yield ModelCallRecorded(
            event_id=call_id, event_time=at, producer="gateway", call_id=call_id, rollout_id=rollout_id,
            route="/v1/chat/completions", requested_model="policy", policy="policy", policy_version=1,
            request={"messages": [{"role": "user", "content": "word " * len(prompt)}]},
            prompt_token_ids=pack_ints(prompt), choices=[choice], latency_s=0.5,
            usage=Usage(prompt_tokens=len(prompt), completion_tokens=shape.response_tokens),
            started_at=at + timedelta(milliseconds=number),
        )  # fmt: skip
        fresh = random.integers(0, VOCABULARY, shape.turn_tokens or shape.prompt_tokens, dtype=np.int32)
        prompt = fresh if shape.turn_tokens is None else np.concatenate([prompt, response, fresh])
