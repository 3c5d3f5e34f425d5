"""Splits a rollout's rewards over a policy's calls, as one episode per strategy.

An episode has the calls that one strategy credits, as steps, and all rewards of the rollout. Rewards that name none of
these calls (of the rollout, of context, of other policies and of other strategies' calls) are its outcome, which goes
to the last step.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
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
    """An action's immediate reward, and its step: the index of the part, and the index of the step there."""

    reward: float
    part: int
    step: int


def is_estimate(reward: RewardAssigned) -> bool:
    """Whether `reward` is a critic's estimate of a value."""
    return reward.name == VALUE and reward.weight == 0.0 and reward.call_id is not None


def total_of(rewards: Iterable[RewardAssigned]) -> float:
    """The sum of the rewards' contributions, without estimates."""
    return math.fsum(reward.value * reward.weight for reward in rewards if not is_estimate(reward))


def parts_of(
    actions: Sequence[Action], rewards: Sequence[RewardAssigned], strategy: Strategy
) -> tuple[list[Part], dict[Key, ActionStep]]:
    """The parts of one policy's `actions`, and the step of each; `strategy` credits actions without their own.

    The choices of one call share its step: they are alternatives, so none of them comes after another. Its immediate
    reward is the first choice's, so that the rewards of all actions add up to the total.
    """
    of_strategy: dict[Strategy, list[Action]] = {}
    for action in actions:
        of_strategy.setdefault(action.strategy or strategy, []).append(action)
    parts = [Part(strategy=one, episode=_episode(mine, rewards)) for one, mine in of_strategy.items()]
    numbers = {
        call_id: (part, step)
        for part, mine in enumerate(of_strategy.values())
        for step, call_id in enumerate(_calls(mine))
    }
    whole = parts[0].episode if len(parts) == 1 else _episode(actions, rewards)
    left = dict(zip(_calls(actions), (step.reward for step in whole.steps), strict=True))
    return parts, {_key(a): ActionStep(left.pop(a.call_id, 0.0), *numbers[a.call_id]) for a in actions}


def _episode(actions: Sequence[Action], rewards: Sequence[RewardAssigned]) -> Episode:
    """The calls of `actions` as steps."""
    first = {action.call_id: action for action in reversed(actions)}
    own: dict[str, list[float]] = {call_id: [] for call_id in _calls(actions)}
    values = {reward.call_id: reward.value for reward in reversed(rewards) if is_estimate(reward)}
    contributions = [
        (reward.call_id or "", reward.value * reward.weight) for reward in rewards if not is_estimate(reward)
    ]
    outcome: list[float] = []
    for call_id, contribution in contributions:
        own.get(call_id, outcome).append(contribution)
    last = actions[-1].call_id
    steps = tuple(
        Step(
            own=math.fsum(earned),
            reward=math.fsum(earned + (outcome if call_id == last else [])),
            state=hashlib.blake2b(first[call_id].prompt, digest_size=DIGEST_BYTES).hexdigest(),
            value=values.get(call_id),
        )
        for call_id, earned in own.items()
    )
    return Episode(steps, math.fsum(contribution for _, contribution in contributions), math.fsum(outcome))


def _calls(actions: Iterable[Action]) -> list[str]:
    """The calls of `actions`, in order."""
    return list(dict.fromkeys(action.call_id for action in actions))


def _key(action: Action) -> Key:
    return action.call_id, action.choice
