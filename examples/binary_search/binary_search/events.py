"""Games as the events that gateway and reward would have recorded of them, which is all that credit ever sees."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from binary_search.game import OUTCOME
from binary_search.player import Action, Played
from leyden.events import (
    Choice,
    Event,
    Evidence,
    ModelCallRecorded,
    RewardAssigned,
    RewardsCompleted,
    RolloutEnded,
    RolloutSettled,
    pack_floats,
    pack_ints,
)
from leyden.ids import derive, rollout_id_of

POLICY = "policy"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Nothing here reads a clock: the calls of a rollout are a second apart."""


def recorded(played: Played, group_id: str, group_size: int, index: int, version: int) -> Iterator[Event]:
    """Everything recorded of the group's rollout number `index`, played by the policy at `version`."""
    rollout_id = rollout_id_of(group_id, index)
    about: dict[str, Any] = {"rollout_id": rollout_id, "attempt": 0, "event_time": EPOCH}
    calls = [_call(action, turn, rollout_id, version) for turn, action in enumerate(played.actions)]
    call_ids = sorted(call.call_id for call in calls)
    rewards = [_reward(about, "found", OUTCOME * played.found, None)] + [
        _reward(about, "pointless_guess", action.reward, call.call_id)
        for action, call in zip(played.actions, calls, strict=True)
        if action.reward
    ]
    yield from calls
    yield RolloutEnded(
        **about,
        event_id=derive("rollout-ended", rollout_id),
        producer="gateway",
        status="succeeded",
        group_id=group_id,
        group_size=group_size,
        call_ids=call_ids,
        started_at=EPOCH,
    )
    yield RolloutSettled(
        **about,
        event_id=derive("rollout-settled", rollout_id),
        producer="reward",
        call_ids=call_ids,
        span_ids=[],
        complete=True,
    )
    yield from rewards
    yield RewardsCompleted(
        **about,
        event_id=derive("rewards-completed", rollout_id),
        producer="reward",
        reward_ids=sorted(reward.event_id for reward in rewards),
    )


def _reward(about: dict[str, Any], rule: str, value: float, call_id: str | None) -> RewardAssigned:
    """Of one call, or of the whole rollout."""
    of_call = Evidence(kind="call", id=call_id) if call_id else Evidence(kind="rollout", id=about["rollout_id"])
    return RewardAssigned(
        **about,
        event_id=derive("reward-assigned", rule, about["rollout_id"], call_id or ""),
        producer="reward",
        rule=rule,
        name=rule,
        value=value,
        evidence=of_call,
        call_id=call_id,
    )


def _call(action: Action, turn: int, rollout_id: str, version: int) -> ModelCallRecorded:
    at = EPOCH + timedelta(seconds=turn)
    call_id = derive("model-call", rollout_id, turn)
    return ModelCallRecorded(
        event_id=call_id,
        event_time=at,
        producer="gateway",
        call_id=call_id,
        rollout_id=rollout_id,
        route="/v1/completions",
        requested_model=POLICY,
        policy=POLICY,
        policy_version=version,
        request={},
        prompt_token_ids=pack_ints(action.prompt),
        choices=[Choice(index=0, token_ids=pack_ints([action.token]), logprobs=pack_floats([action.logprob]))],
        started_at=at,
        latency_s=0.0,
    )
