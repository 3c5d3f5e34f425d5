"""Splits a rollout's rewards over a policy's actions, as one episode per strategy.

An episode has the actions that one strategy credits, and all rewards of the rollout. Rewards that name none of these
actions (of the rollout, of context, of other policies and of other strategies' actions) are its outcome, which goes to
the last action.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from leyden.credit.core.actions import Action
from leyden.credit.core.member import Part
from leyden.credit.core.strategies import Episode, Step, Strategy
from leyden.events import RewardAssigned

Key = tuple[str, int]
"""An action: call id and choice."""
VALUE = "value"
"""Name of a zero-weight reward that is a critic's estimate of the state's value, and not a reward."""
DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class ActionStep:
    """An action as a step of an episode: its immediate reward, the index of its part, its index there."""

    reward: float
    part: int
    step: int


def is_estimate(reward: RewardAssigned) -> bool:
    """Whether `reward` is a critic's estimate of a value."""
    return reward.name == VALUE and reward.weight == 0.0 and reward.call_id is not None


def parts_of(
    actions: Sequence[Action], rewards: Sequence[RewardAssigned], strategy: Strategy
) -> tuple[list[Part], dict[Key, ActionStep]]:
    """The parts of one policy's `actions`, and the step of each; `strategy` credits actions without their own."""
    of_strategy: dict[Strategy, list[Action]] = {}
    for action in actions:
        of_strategy.setdefault(action.strategy or strategy, []).append(action)
    parts = [Part(strategy=one, episode=_episode(mine, rewards)) for one, mine in of_strategy.items()]
    alone = len(parts) == 1
    immediate = [step.reward for step in (parts[0].episode if alone else _episode(actions, rewards)).steps]
    numbers = {_key(a): (part, step) for part, mine in enumerate(of_strategy.values()) for step, a in enumerate(mine)}
    return parts, {_key(a): ActionStep(reward, *numbers[_key(a)]) for a, reward in zip(actions, immediate, strict=True)}


def _episode(actions: Sequence[Action], rewards: Sequence[RewardAssigned]) -> Episode:
    """The actions as steps. A call's rewards go to its first choice; its value estimate goes to all choices."""
    own: dict[Key, list[float]] = {_key(action): [] for action in actions}
    first_choice = {call_id: (call_id, choice) for call_id, choice in reversed(own)}
    values = {reward.call_id: reward.value for reward in reversed(rewards) if is_estimate(reward)}
    contributions = [
        (reward.call_id or "", reward.value * reward.weight) for reward in rewards if not is_estimate(reward)
    ]
    outcome: list[float] = []
    for call_id, contribution in contributions:
        earned = own[first_choice[call_id]] if call_id in first_choice else outcome
        earned.append(contribution)
    last = first_choice[actions[-1].call_id]
    steps = tuple(
        Step(
            own=math.fsum(own[_key(action)]),
            reward=math.fsum(own[_key(action)] + (outcome if _key(action) == last else [])),
            state=hashlib.blake2b(action.prompt, digest_size=DIGEST_BYTES).hexdigest(),
            value=values.get(action.call_id),
        )
        for action in actions
    )
    return Episode(steps, math.fsum(contribution for _, contribution in contributions), math.fsum(outcome))


def _key(action: Action) -> Key:
    return action.call_id, action.choice
