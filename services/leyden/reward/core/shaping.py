"""Potential-based shaping: dense rewards that do not change the optimal policy.

F_t = gamma * Phi(s_t+1) - Phi(s_t), with Phi 0 at the beginning and the end of an episode (Ng, Harada and Russell 1999;
for the end: Grzes 2017). The sum of gamma^t * F_t is 0 for every episode, so no return is gained or lost; the feedback
only comes earlier.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from leyden.events import Evidence
from leyden.events.joins import unix_nano
from leyden.reward.core.rules.base import Signal
from leyden.reward.core.view import RolloutView


@dataclass(frozen=True)
class Potential:
    """Phi of the current state, and `room`: what is left of the limit on the episode's absolute rewards.

    If the limit is reached, Phi is limited; earlier rewards are never scaled. So Phi of a state does not depend on
    later states. `room` always suffices to return to 0.
    """

    phi: float = 0.0
    room: float = math.inf

    def moved(self, target: float, gamma: float) -> tuple["Potential", float]:
        """The potential of the next state, as close to `target` as `room` allows, and the reward F."""
        low, high = self._reachable(gamma)
        phi = min(max(target, low), high) + 0.0  # never -0.0, which is other bytes
        reward = gamma * phi - self.phi
        return Potential(phi, max(abs(phi), self.room - abs(reward))), reward

    def ended(self) -> float:
        """The reward F for the end of the episode, where Phi is 0."""
        return 0.0 - self.phi

    def _reachable(self, gamma: float) -> tuple[float, float]:
        """Smallest and largest x with |gamma x - phi| + |x| <= room: the cost of going to x and back to 0."""
        if math.isinf(self.room):
            return -math.inf, math.inf
        size = abs(self.phi)
        away = (self.room + size) / (1 + gamma)
        if gamma * away < size:
            # For x up to |phi| / gamma; near gamma = 1 rounding alone would go beyond.
            away = min((self.room - size) / (1 - gamma), size / gamma)
        back = (self.room - size) / (1 + gamma)
        return (-back, away) if self.phi >= 0 else (-away, back)


def shaping_rewards(targets: Sequence[float], gamma: float, room: float = math.inf) -> list[float]:
    """F_0 … F_T-1 for target potentials of the states s_1 … s_T-1. The absolute values sum to at most `room`."""
    potential, rewards = Potential(room=room), []
    for target in targets:
        potential, reward = potential.moved(target, gamma)
        rewards.append(reward)
    return [*rewards, potential.ended()]


def shaped(signals: Sequence[Signal], view: RolloutView, gamma: float, room: float = math.inf) -> list[Signal]:
    """One signal F per step (a policy's call); Phi(s_t) is the sum of the `signals` known before the call of step t.

    A signal for a step's action is known at the next step. Other signals are known from the first call that started
    after their evidence ended; those known before the first call or only after the last one are ignored. Without
    `signals` the result is empty, not zeros.
    """
    if not signals or not view.steps:
        return []
    steps = list(view.steps)
    starts = [unix_nano(view.calls_by_id[call_id].started_at) for call_id in steps]
    known: list[list[float]] = [[] for _ in [*steps, None]]
    for signal in signals:
        known[_known_at(signal, view, starts)].append(signal.value)
    targets, phi = [], 0.0
    for values in known[1 : len(steps)]:
        phi = math.fsum([phi, *values])
        targets.append(phi)
    rewards = shaping_rewards(targets, gamma, room)
    names = {signal.name for signal in signals}
    name = names.pop() if len(names) == 1 else None
    return [
        Signal(reward, Evidence(kind="call", id=call_id), name, call_id)
        for call_id, reward in zip(steps, rewards, strict=True)
    ]


def _known_at(signal: Signal, view: RolloutView, starts: Sequence[int]) -> int:
    """The first step at which the signal is known; the number of steps if there is none."""
    if (step := view.steps.get(signal.call_id or "")) is not None:
        return step + 1
    match signal.evidence:
        case Evidence(kind="span", id=id_) if id_ in view.span_index.by_event:
            return bisect_left(starts, view.span_index.by_event[id_].end_unix_nano)
        case Evidence(kind="call", id=id_) if id_ in view.calls_by_id:
            return bisect_left(starts, unix_nano(view.calls_by_id[id_].ended_at))
    return len(starts)
